"""How values look, as tables."""

from __future__ import annotations

import pytest
from factories import rows

from agent.web import presentation


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Doe^John", "Doe, John"),
        ("Doe^John^Q^Dr", "Doe, John Q"),
        ("Yamada^Tarou=山田^太郎", "Yamada, Tarou"),
        ("=山田^太郎", "山田, 太郎"),
        ("^^", ""),
        ("", ""),
        ("Plain", "Plain"),
    ],
)
def test_a_person_name_reads_as_people_write_it(value: str, expected: str):
    """Family, given; the first group that holds a name."""
    assert expected == presentation.person_name(value)


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (0.4, "0 min"),
        (59.9, "59 min"),
        (60, "1 h"),
        (61, "1 h 1 min"),
        (2879, "47 h 59 min"),
        (2880, "2 d"),
        (3000, "2 d 2 h"),
    ],
)
def test_a_duration_has_at_most_two_units(minutes: float, expected: str):
    """Minutes, hours, days."""
    assert expected == presentation.duration(minutes)


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, "< 1 %"), (0.004, "< 1 %"), (0.005, "0 %"), (0.944, "94 %"), (0.996, "> 99 %")],
)
def test_a_probability_is_never_certain(probability: float, expected: str):
    """A model is not sure."""
    assert expected == presentation.percent(probability)


@pytest.mark.parametrize(
    ("birth_date", "expected"),
    [
        ("19600101", "66 y"),
        ("19601124", "65 y"),
        ("20260101", "10 mo"),
        ("20300101", ""),
        ("", ""),
        ("1960", ""),
        ("unknown", ""),
    ],
)
def test_age_is_in_completed_years_or_months(birth_date: str, expected: str):
    """And empty when it cannot be known."""
    assert expected == presentation.age(birth_date, rows.NOW)


def test_odd_dates_are_shown_as_they_are():
    """Nothing that was received is hidden for its form."""
    assert (
        presentation.dicom_date("20261123"),
        presentation.dicom_date("odd"),
        presentation.dicom_time("083000.1"),
        presentation.dicom_time(""),
    ) == ("2026-11-23", "odd", "08:30", "")
