"""Slices, reports as text, viewers, priors and orders on the pages; the operations page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import rows
from pydantic import ValidationError
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from agent.settings import WebSettings
from agent.settings_viewer import fill
from agent.web import report_text
from agent.worklist_entries import summary_of
from db.states import DeliveryState, ReadingState, StudyState


def test_a_viewer_gets_only_identifiers_and_they_are_encoded(web: Any):
    """An accession number is text from outside: it cannot change the address."""
    with web.sessions.begin() as session:
        rows.study(session, accession_number="A&b=1/../#x", study_uid="1.2.3")
    client = web.client(
        viewer_url="https://pacs.test/open?a={accession}",
        ohif_url="https://ohif.test/viewer?StudyInstanceUIDs={study_uid}",
    )

    page = client.get("/").text

    assert 'href="https://pacs.test/open?a=A%26b%3D1%2F..%2F%23x"' in page
    assert 'href="https://ohif.test/viewer?StudyInstanceUIDs=1.2.3"' in page
    assert 'rel="noopener noreferrer"' in page


@pytest.mark.parametrize(
    "template",
    [
        "javascript:alert({study_uid})",
        "https://pacs.test/{patient_id}",
        "https://pacs.test/",
        "https://pacs.test/{study_uid.__class__}",
        "https://pacs.test/{study_uid!r}",
        "{accession}",
    ],
)
def test_a_viewer_address_with_anything_else_is_refused(template: str):
    """When the configuration is read."""
    with pytest.raises(ValidationError):
        WebSettings(viewer_url=template)


def test_a_study_without_accession_is_not_opened_by_it():
    """Better no link than one to all studies."""
    assert fill("https://pacs.test/?a={accession}", "1.2", "") == ""


def test_a_changed_priority_needs_a_level_and_a_reason(web: Any):
    """And is in the timeline with the name of who changed it."""
    with web.sessions.begin() as session:
        study = rows.study(session, priority="LOW")
    client = web.client()
    path = f"/api/studies/{study.key}/priority"

    assert client.post(path, json={"level": "STAT", "reason": "  "}).status_code == 422
    assert client.post(path, json={"level": "URGENT", "reason": "seizing"}).status_code == 422
    assert client.post(path, json={"level": "STAT", "reason": "seizing"}).status_code == 200
    shown = client.get(f"/studies/{study.key}").text
    assert "set by radiologist: seizing" in shown
    assert client.get("/api/worklist").json()["studies"][0]["set_by_reader"] is True


def test_priors_and_what_was_found_in_them_are_on_the_study_page(web: Any):
    """By patient and issuer."""
    with web.sessions.begin() as session:
        study = rows.study(session, patient_id="7")
        prior = rows.study(session, patient_id="7", reading_state=ReadingState.READ)
        rows.analysis(session, prior)
        rows.study(session, patient_id="7", issuer_of_patient_id="OTHER", description="NOT HIS")
    client = web.client()

    page = client.get(f"/studies/{study.key}").text

    assert f"/studies/{prior.key}" in page
    assert "intraparenchymal hemorrhage" in page
    assert "NOT HIS" not in page
    assert "1 prior" in client.get("/").text


def test_a_report_is_read_as_text(tmp_path: Path):
    """The tree of names and values, indented."""
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3"
    report.Modality, report.VerificationFlag = "SR", "UNVERIFIED"
    report.ConceptNameCodeSequence = [_code("Imaging Measurement Report")]
    finding = _item("CODE", "Finding")
    finding.ConceptCodeSequence = [_code("Hemorrhage")]
    number = _item("NUM", "Probability")
    value = Dataset()
    value.NumericValue, value.MeasurementUnitsCodeSequence = "97", [_code("percent", "%")]
    number.MeasuredValueSequence = [value]
    finding.ContentSequence = [number]
    report.ContentSequence = [finding]
    report.save_as(tmp_path / "sr.dcm", enforce_file_format=True)

    lines = report_text.read(tmp_path / "sr.dcm").splitlines()

    assert lines[0] == "Imaging Measurement Report"
    assert "UNVERIFIED" in lines[2]
    assert lines[4:] == ["Finding: Hemorrhage", "  Probability: 97 %"]


def _item(kind: str, name: str) -> Dataset:
    item = Dataset()
    item.ValueType, item.ConceptNameCodeSequence = kind, [_code(name)]
    return item


def _code(meaning: str, value: str = "X") -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "99TEST", meaning
    return code


def test_a_report_of_another_study_is_not_shown(web: Any):
    """The address names study and object; both must agree."""
    with web.sessions.begin() as session:
        study, other = rows.study(session), rows.study(session)
        result = rows.result(session, rows.analysis(session, other))

    answer = web.client().get(f"/studies/{study.key}/results/{result.sop_uid}.txt")

    assert answer.status_code == 404


def test_the_operations_page_shows_failures_without_patients(web: Any):
    """Reasons and buttons; no name, no identifier."""
    with web.sessions.begin() as session:
        failed = rows.study(session, state=StudyState.FAILED, reason="out of memory")
        result = rows.result(session, rows.analysis(session, failed))
        row = rows.delivery(session, result, state=DeliveryState.DEAD, last_error="no route")

    page = web.client().get("/operations").text

    for expected in ("out of memory", "no route", f"retry-study-{failed.id}", f"retry-{row.id}"):
        assert expected in page
    for identity in (failed.patient_id, "Example", failed.accession_number):
        assert identity not in page


def test_a_line_of_the_list_needs_no_maps():
    """The summary of findings with a map is short, and says where the map is."""
    said = rows.findings(rows.finding(grounding=rows.grounding("1.2.3"))).to_json()

    summary = summary_of(said)

    assert "1.2.3" in summary
    assert "saliency" not in summary
