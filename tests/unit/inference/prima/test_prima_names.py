"""Series names and character codes beyond the golden cases."""

from __future__ import annotations

from inference.prima.names import MAX_CODES, char_codes, natural_key, series_name


def test_numbers_in_names_sort_by_value():
    """As a person would order them."""
    given = ["10_sag", "2_ax", "IM-0001-0010", "IM-0001-0009", "a", "", "1"]
    assert sorted(given, key=natural_key) == [
        "", "1", "2_ax", "10_sag", "IM-0001-0009", "IM-0001-0010", "a",
    ]  # fmt: skip


def test_texts_too_long_for_the_model_lose_their_end():
    """200 codes with the end, where the published code fails."""
    codes = char_codes(series_name("+" * 64, "*" * 64, "1"))
    assert len(codes) == MAX_CODES
    assert (codes == 46).nonzero()[0].tolist() == [MAX_CODES - 1]


def test_every_character_has_a_code():
    """Alphabet, unknown and end."""
    assert char_codes("aZ_+-09.*(),é").tolist() == [
        1, 26, 27, 28, 29, 30, 39, 40, 41, 42, 43, 44, 45, 46,
    ]  # fmt: skip


def test_an_empty_text_is_its_end():
    """A study without a description still has one end code."""
    assert char_codes("").tolist() == [46]
