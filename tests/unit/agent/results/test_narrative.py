"""The drafted report in the SR: unverified, linked to its findings, without what is unsupported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from factories import result_cases
from pydicom.dataset import Dataset

from agent.results.compose import compose
from agent.results.context import ResultContext, ResultOptions
from inference.report.draft import Draft, Source


@pytest.fixture
def context(tmp_path: Path) -> ResultContext:
    """A report with a draft of three sentences, one of them unsupported."""
    return result_cases.drafted(tmp_path)


def test_every_sentence_says_that_it_is_unverified(context: ResultContext) -> None:
    """The status comes first, the concept of each sentence repeats it, the author is named."""
    texts = _texts(context)

    assert texts["DRAFT-STATEMENT"][0].startswith("UNVERIFIED DRAFT")
    assert texts["DRAFT-AUTHOR"] == ["tiny-findings 1.0 (language model)"]
    assert texts["DRAFT-FINDING"] == [
        "Acute hemorrhage on the left.",
        "Ecart de la ligne mediane 3 mm.",
    ]


def test_unsupported_sentences_stay_in_the_house(context: ResultContext) -> None:
    """The reader is told how many; only a site that asked for them gets them, marked."""
    texts = _texts(context)
    assert texts["DRAFT-LEFT-OUT"] == ["1 of 3: the analysis does not support them"]

    asked = dataclasses.replace(context, options=ResultOptions(unsupported_sentences=True))
    texts = _texts(asked)
    assert "DRAFT-LEFT-OUT" not in texts
    assert texts["DRAFT-FINDING"][1].startswith("[UNSUPPORTED: no head looks for fractures]")


def test_sentence_leads_to_the_group_of_its_finding(context: ResultContext) -> None:
    """By the tracking UID, which the finding's own group carries."""
    report = _report(context)
    first = next(i for i in _items(report) if _code(i) == "DRAFT-FINDING")

    (link,) = first.ContentSequence
    assert (link.RelationshipType, link.ValueType) == ("INFERRED FROM", "UIDREF")
    tracked = [i.UID for i in _items(report) if i.get("ValueType") == "UIDREF" and i is not link]
    assert link.UID in tracked


def test_edition_is_another_document_of_the_same_analysis(context: ResultContext) -> None:
    """It must be able to replace the first one, so it has its own UIDs; its tracking stays."""
    first = _report(dataclasses.replace(context, edition="", draft=None))
    second = _report(context)

    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.SeriesNumber != second.SeriesNumber


def test_nothing_found_is_said_and_not_left_blank(context: ResultContext) -> None:
    """An empty draft must not look like a missing one."""
    empty = Draft("CT Head", (), Source.TEMPLATE, "template", reason="no language model")
    texts = _texts(dataclasses.replace(context, draft=empty))

    assert texts["DRAFT-FINDING"] == ["No finding was drafted."]
    assert texts["DRAFT-AUTHOR"][0].endswith("no language model); no language model")


def test_opinions_that_differ_are_written_down(context: ResultContext) -> None:
    """The reader sees which voice said what."""
    texts = _texts(context)

    assert texts["PRIORITY-VOICE"] == ["findings of demo-head: STAT", "triage: LOW"]
    assert "triage: LOW" in texts["PRIORITY-DIFFER"][0]


def test_provisional_report_is_partial_and_says_so(tmp_path: Path) -> None:
    """Nobody may take it for the last word."""
    report = _report(result_cases.provisional(tmp_path))

    assert report.CompletionFlag == "PARTIAL"
    assert "provisional" in report.SeriesDescription
    assert any(_code(item) == "PROVISIONAL" for item in _items(report))


def _report(context: ResultContext) -> Dataset:
    (made,) = compose(context, ["sr"])
    dataset: Dataset = made.dataset
    return dataset


def _items(item: Dataset) -> list[Dataset]:
    found = []
    for child in item.get("ContentSequence", []):
        found += [child, *_items(child)]
    return found


def _code(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence", [])
    return str(names[0].CodeValue) if names else ""


def _texts(context: ResultContext) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for item in _items(_report(context)):
        if item.get("ValueType") == "TEXT":
            texts.setdefault(_code(item), []).append(str(item.TextValue))
    return texts
