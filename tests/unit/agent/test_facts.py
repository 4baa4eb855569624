"""Facts of a study, and conditions on them."""

from __future__ import annotations

import pytest

from agent import facts
from agent.settings import Match

HEAD = facts.StudyFacts(
    modalities=frozenset({"CT", "SR"}),
    body_part="HEAD",
    texts=("CT Head w/o contrast", "AX 5mm"),
    station="CT1",
    location="ED 4",
    calling_ae="SCANNER",
    ordered_priority="ROUTINE",
    age_years=54.0,
)


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (Match(), True),
        (Match(modality="CT"), True),
        (Match(modality="C"), False),
        (Match(modality="ct|mr"), True),
        (Match(text=r"\bhead\b"), True),
        (Match(text="knee"), False),
        (Match(text="head", not_text="contrast"), False),
        (Match(body_part="^head$"), True),
        (Match(station="CT[12]"), True),
        (Match(location="ED"), True),
        (Match(calling_ae="SCAN"), False),
        (Match(ordered_priority="routine"), True),
        (Match(age_min=18, age_max=60), True),
        (Match(age_max=18), False),
    ],
)
def test_every_given_condition_must_hold(match: Match, holds: bool) -> None:
    """Conditions are joined by and; texts are searched, titles and modalities matched whole."""
    assert facts.matches(match, HEAD) is holds


def test_an_unknown_age_fulfils_no_age_bound() -> None:
    """A rule for children does not take a patient without a birth date."""
    unknown = facts.StudyFacts(frozenset({"CT"}))

    assert not facts.matches(Match(age_max=2), unknown)
    assert not facts.matches(Match(age_min=0), unknown)


@pytest.mark.parametrize(
    ("born", "examined", "years"),
    [
        ("19600101", "20260101", 66.0),
        ("20260101", "20260201", 0.085),
        ("", "20260101", None),
        ("1960-01-01", "20260101", None),
        ("20300101", "20260101", None),
    ],
)
def test_age_comes_from_the_two_dates(born: str, examined: str, years: float | None) -> None:
    """Odd or missing dates give no age instead of a wrong one."""
    age = facts.age_years(born, examined)

    assert age == (None if years is None else pytest.approx(years, abs=0.01))
