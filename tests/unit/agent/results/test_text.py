"""Our own words fit every character set and every value representation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.results.codes import label_code
from agent.results.text import STATEMENT, description, plain


@given(st.text(max_size=200))
def test_plain_text_is_ascii_without_delimiters(text: str):
    """Whatever a pack calls a finding, no backslash or control character gets into a value."""
    result = plain(text, 64)

    assert len(result) <= 64
    assert all(" " <= c <= "~" and c != "\\" for c in result)


def test_diacritics_lose_their_marks_not_their_letters():
    """A French or German label stays readable."""
    assert (
        plain("Hémorragie intracrânienne \N{EN DASH} Größe") == "Hemorragie intracranienne - Grosse"
    )


@given(st.text(max_size=200))
def test_descriptions_end_with_their_purpose(text: str):
    """However long the title, RESEARCH USE ONLY is never cut off."""
    result = description(text)

    assert len(result) <= 64
    assert result.endswith("RESEARCH USE ONLY")


def test_the_statement_fits_its_attribute():
    """CompletionFlagDescription holds 64 characters."""
    assert len(STATEMENT) <= 64


def test_long_labels_keep_distinct_codes():
    """Labels that only differ late do not share a code value."""
    codes = {label_code(f"intraparenchymal_hemorrhage_{side}") for side in ("left", "right")}

    assert len(codes) == 2
    assert all(len(code) <= 16 for code in codes)
    assert label_code("infarct") == "infarct"
