"""C-FIND key matching, as tables."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicom_nodes.scp import matching

CANDIDATE = {
    "PatientName": "Müller^Jürgen^^Dr",
    "PatientID": "PAT*7",
    "AccessionNumber": "ACC-0042",
    "StudyInstanceUID": "1.2.3",
    "PatientBirthDate": "19600131",
    "PatientSex": "",
    "RequestedProcedurePriority": "STAT",
    "RequestedProcedureDescription": "CT head a.b",
}
STEP = {
    "Modality": "CT",
    "ScheduledStationAETitle": "SCANNER",
    "ScheduledProcedureStepStartDate": "20261123",
    "ScheduledProcedureStepStartTime": "083059.25",
}


def _dataset(values: dict[str, object]) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def _candidate() -> Dataset:
    ds = _dataset(CANDIDATE)
    ds.ScheduledProcedureStepSequence = [_dataset(STEP)]
    return ds


@pytest.mark.parametrize(
    ("keyword", "key", "expected"),
    [
        ("PatientID", "", True),
        ("PatientID", "*", True),
        ("PatientID", "PAT*", True),
        ("PatientID", "pat*", False),
        ("PatientID", "PAT?7", True),
        ("PatientID", "PAT", False),
        ("AccessionNumber", "ACC-0042", True),
        ("AccessionNumber", "acc-0042", False),
        ("AccessionNumber", "ACC.0042", False),
        ("PatientName", "müller^jürgen", False),
        ("PatientName", "MÜLLER^JÜRGEN^^DR", True),
        ("PatientName", "müller^*", True),
        ("PatientName", "Mueller*", False),
        ("PatientName", "Müller^Jürgen^^Dr^", True),
        ("StudyInstanceUID", "1.2.3", True),
        ("StudyInstanceUID", ["9.9", "1.2.3"], True),
        ("StudyInstanceUID", "1.2", False),
        ("PatientBirthDate", "19600131", True),
        ("PatientBirthDate", "19600101-19600201", True),
        ("PatientBirthDate", "19600201-", False),
        ("PatientBirthDate", "-19600131", True),
        ("PatientSex", "F", False),
        ("RequestedProcedurePriority", "STAT", True),
        ("RequestedProcedurePriority", "HIGH", False),
        ("RequestedProcedureDescription", "CT head a?b", True),
        ("RequestedProcedureDescription", "CT head aXb", False),
        ("PatientComments", "anything", True),
        ("SpecificCharacterSet", "ISO_IR 100", True),
    ],
)
def test_a_root_key_matches_by_the_rules_of_its_value_representation(
    keyword: str, key: Any, expected: bool
):
    """Empty and * are universal; wildcards, ranges, names and UID lists follow C.2.2.2."""
    actual = matching.matches(_dataset({keyword: key}), _candidate())

    assert expected is actual


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({}, True),
        ({"Modality": "CT"}, True),
        ({"Modality": "MR"}, False),
        ({"ScheduledStationAETitle": "SCAN*"}, True),
        ({"Modality": "CT", "ScheduledStationAETitle": "OTHER"}, False),
        ({"ScheduledProcedureStepStartDate": "20261123"}, True),
        ({"ScheduledProcedureStepStartDate": "20261124-20261130"}, False),
        ({"ScheduledProcedureStepStartTime": "0830"}, True),
        ({"ScheduledProcedureStepStartTime": "08-09"}, True),
        ({"ScheduledProcedureStepStartTime": "0831-09"}, False),
    ],
)
def test_a_step_key_matches_inside_the_sequence(step: dict[str, object], expected: bool):
    """The keys of the one item of the sequence key are matched against the candidate's items."""
    keys = Dataset()
    keys.ScheduledProcedureStepSequence = [_dataset(step)]

    assert expected is matching.matches(keys, _candidate())


@pytest.mark.parametrize(
    ("dates", "times", "expected"),
    [
        ("20261122-20261123", "2000-0900", True),
        ("20261122-20261123", "2000-0800", False),
        ("20261123-20261124", "0900-0800", False),
        ("20261123-20261124", "0800-0700", True),
    ],
)
def test_date_and_time_ranges_mean_one_span(dates: str, times: str, expected: bool):
    """From the first time on the first date to the last time on the last date (C.2.2.2.5)."""
    keys = Dataset()
    keys.ScheduledProcedureStepSequence = [
        _dataset(
            {"ScheduledProcedureStepStartDate": dates, "ScheduledProcedureStepStartTime": times}
        )
    ]

    assert expected is matching.matches(keys, _candidate())


def test_an_empty_sequence_key_is_universal():
    """A zero-length sequence asks for the whole item and restricts nothing."""
    keys = Dataset()
    keys.ScheduledProcedureStepSequence = []

    assert matching.matches(keys, _candidate())


@pytest.mark.parametrize("key", ["yesterday", "20260101-20260102-20260103", "2026*"])
def test_a_date_key_that_is_no_date_is_refused(key: str):
    """Silently matching nothing (or everything) would hide the mistake."""
    keys = Dataset()
    keys.add_new("PatientBirthDate", "DA", "")
    keys["PatientBirthDate"]._value = key

    with pytest.raises(matching.MatchingError):
        matching.matches(keys, _candidate())


def test_a_sequence_key_with_two_items_is_refused():
    """PS3.4 C.2.2.2.6 allows exactly one item."""
    keys = Dataset()
    keys.ScheduledProcedureStepSequence = [_dataset({"Modality": "CT"}), _dataset({})]

    with pytest.raises(matching.MatchingError, match="exactly one item"):
        matching.matches(keys, _candidate())
