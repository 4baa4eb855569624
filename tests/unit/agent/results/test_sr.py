"""The report says everything, whatever the outcome, and refers to what it belongs to."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import highdicom as hd
import pydicom
import pytest
from factories import dicom, result_cases, results
from pydicom.dataset import Dataset

from agent.results import compose
from agent.results.context import PriorityStatement, ResultContext
from inference.findings import Code, Status

PRESENCE, CERTAINTY, SUMMARY = "121052", "111012", "111065"


def report(context: ResultContext, tmp_path: Path, kinds: tuple[str, ...] = ("sr",)) -> Dataset:
    """Compose, write and read back the report."""
    written = compose.compose_files(context, tmp_path / "out", kinds)
    return pydicom.dcmread(written[0][1])


def groups(ds: Dataset) -> list[Dataset]:
    """The measurement groups."""
    (container,) = [i for i in ds.ContentSequence if name(i) == "126010"]
    return list(container.ContentSequence)


def name(item: Dataset) -> str:
    """Code value of a content item's concept name."""
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def value(group: Dataset, concept: str) -> object:
    """The value of a group's content item, None when there is none."""
    for item in group.ContentSequence:
        if name(item) != concept:
            continue
        if item.ValueType == "CODE":
            return str(item.ConceptCodeSequence[0].CodeValue)
        if item.ValueType == "NUM":
            return float(item.MeasuredValueSequence[0].NumericValue)
        return str(item.get("TextValue") or item.get("UID"))
    return None


def test_every_label_has_an_explicit_presence_and_probability(
    context: ResultContext, tmp_path: Path
):
    """What was not found is said to be absent, not left out."""
    found = groups(report(context, tmp_path))[1:]

    assert [(value(g, PRESENCE), value(g, CERTAINTY)) for g in found] == [
        ("52101004", 93.0),
        ("272519000", 12.0),
        ("272519000", 7.0),
    ]


def test_the_priority_is_coded_with_its_reason(context: ResultContext, tmp_path: Path):
    """A routing rule finds level, ordered level and reason under our scheme, which is described."""
    ds = report(context, tmp_path)
    study = groups(ds)[0]

    assert value(study, "PRIORITY") == "STAT"
    assert value(study, "ORDERED-PRIORITY") == "MEDIUM"
    assert value(study, "PRIORITY-REASON") == "Hemorrhage 93% (urgent)"
    schemes = [i.CodingSchemeDesignator for i in ds.CodingSchemeIdentificationSequence]
    assert schemes == ["99DEMO", "99WLAGENT"]


def test_an_order_without_a_priority_states_none(context: ResultContext, tmp_path: Path):
    """What was not ordered is not invented."""
    silent = dataclasses.replace(context, priority=PriorityStatement("LOW", 0.0, "nothing", None))

    assert value(groups(report(silent, tmp_path))[0], "ORDERED-PRIORITY") is None


@pytest.mark.parametrize(
    ("case", "summary", "completion"),
    [
        ("nothing_found", "111222", "COMPLETE"),
        ("partial", "111223", "PARTIAL"),
        ("failed", "111224", "PARTIAL"),
        ("not_attempted", "111225", "PARTIAL"),
    ],
)
def test_every_outcome_has_a_report(case: str, summary: str, completion: str, tmp_path: Path):
    """Summary of Analyses and CompletionFlag tell the outcomes apart."""
    context = result_cases.CASES[case](tmp_path / "source")
    ds = report(context, tmp_path)

    assert value(groups(ds)[0], SUMMARY) == summary
    assert ds.CompletionFlag == completion
    if case != "nothing_found":
        assert value(groups(ds)[0], "STATUS-REASON") == context.findings.reason


@pytest.mark.parametrize("case", ["failed", "not_attempted"])
def test_without_an_analysis_nothing_is_said_about_any_finding(case: str, tmp_path: Path):
    """No presence, no probability."""
    ds = report(result_cases.CASES[case](tmp_path / "source"), tmp_path)

    assert len(groups(ds)) == 1
    assert value(groups(ds)[0], PRESENCE) is None


def test_what_was_read_in_part_excludes_nothing(tmp_path: Path):
    """In a partial analysis a label below its threshold is undetermined, not absent."""
    ds = report(result_cases.partial(tmp_path / "source"), tmp_path)

    assert [value(g, PRESENCE) for g in groups(ds)[1:]] == ["52101004", "373068000", "373068000"]


def test_flags_say_preliminary_unverified_research(context: ResultContext, tmp_path: Path):
    """Nobody can take the report for a verified one."""
    ds = report(context, tmp_path)

    assert (ds.PreliminaryFlag, ds.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert ds.ContentQualification == "RESEARCH"
    assert "not reviewed by a physician" in ds.CompletionFlagDescription
    assert ds.SeriesDescription.endswith("RESEARCH USE ONLY")
    assert ds.SeriesNumber >= 9000


def test_a_located_finding_shares_its_tracking_uid_with_its_segment(
    context: ResultContext, tmp_path: Path
):
    """The report's region, the segment and the map are one finding."""
    written = {o.kind: p for o, p in compose.compose_files(context, tmp_path / "out")}
    located = groups(pydicom.dcmread(written["sr"]))[-1]
    seg, attention = pydicom.dcmread(written["seg"]), pydicom.dcmread(written["pm"])
    images = {
        name(i): i.ReferencedSOPSequence[0]
        for i in located.ContentSequence
        if "ReferencedSOPSequence" in i
    }

    assert value(located, "112040") == seg.SegmentSequence[0].TrackingUID
    assert images["121191"].ReferencedSOPInstanceUID == seg.SOPInstanceUID
    assert images["121191"].ReferencedSegmentNumber == 1
    assert images["130401"].ReferencedSOPInstanceUID == attention.SOPInstanceUID
    assert value(located, "121232") == context.sources[0].series_uid


def test_without_a_segment_there_is_no_region(context: ResultContext, tmp_path: Path):
    """Nothing refers to an object that was not made."""
    ds = report(context, tmp_path, ("sr", "pm"))

    assert len(groups(ds)) == 4


def test_the_model_can_be_identified(context: ResultContext, tmp_path: Path):
    """Name, version, weights, thresholds and input series are in the report."""
    ds = report(context, tmp_path)
    study = groups(ds)[0]
    parameters = [i.TextValue for i in study.ContentSequence if name(i) == "111002"]
    models = [i for i in ds.ContributingEquipmentSequence if i.ManufacturerModelName == "demo-head"]

    assert value(study, "111001") == "demo-head"
    assert value(study, "111003") == "1.0.0+sha256:abababababab"
    assert f"pack-sha256={'ab' * 32}" in parameters
    assert any(p.startswith(f"series={context.sources[0].series_uid} read") for p in parameters)
    assert value(groups(ds)[1], "111002") == "threshold=0.5"
    assert models[0].DeviceUID != results.INSTALLATION.device_uid
    assert ds.DeviceUID == results.INSTALLATION.device_uid


def test_evidence_holds_every_source_image_and_our_objects(context: ResultContext, tmp_path: Path):
    """A viewer can find from the report what it is about."""
    written = compose.compose_files(context, tmp_path / "out")
    ds = pydicom.dcmread(written[0][1])
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    listed = {
        str(i.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for i in series.ReferencedSOPSequence
    }
    sources = {path.stem for path in context.sources[0].files}

    assert sources | {o.sop_uid for o, _ in written if o.kind in ("seg", "pm")} == listed


def test_the_key_image_of_a_multi_frame_source_is_a_frame(tmp_path: Path):
    """A reference into an enhanced instance names the frame."""
    ds = report(result_cases.enhanced_ct(tmp_path / "source"), tmp_path)
    (image,) = [i for i in groups(ds)[1].ContentSequence if i.ValueType == "IMAGE"]

    assert image.ReferencedSOPSequence[0].ReferencedFrameNumber == 13


def test_a_revision_names_the_report_it_replaces(tmp_path: Path):
    """Predecessor document, new identifiers, and the revision in the description."""
    context = result_cases.second_revision(tmp_path / "source")
    first = pydicom.dcmread(context.predecessors[0])

    ds = report(context, tmp_path)

    series = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert ds.SOPInstanceUID != first.SOPInstanceUID
    assert "rev 2" in ds.SeriesDescription


def test_a_predecessor_that_is_gone_is_left_out(context: ResultContext, tmp_path: Path):
    """Retention may have removed it; the report is written all the same."""
    missing = dataclasses.replace(context, predecessors=(tmp_path / "gone.dcm",))

    assert "PredecessorDocumentsSequence" not in report(missing, tmp_path)


def test_the_order_is_referenced(tmp_path: Path):
    """Accession number and requested procedure come back in the referenced request."""
    request = Dataset()
    request.RequestedProcedureID, request.RequestedProcedureDescription = "RP7", "CT head"
    datasets = dicom.ct_series(n=6, rows=16, cols=16, RequestAttributesSequence=[request])

    (item,) = report(results.positive(datasets, tmp_path), tmp_path).ReferencedRequestSequence

    assert (item.AccessionNumber, item.RequestedProcedureID) == ("ACC1", "RP7")


def test_the_procedure_is_the_ordered_one_else_by_modality(tmp_path: Path):
    """Procedure reported describes the imaging, never the algorithm."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTHEAD", "L", "Schädel"
    ordered = dicom.ct_series(n=6, rows=16, cols=16, ProcedureCodeSequence=[code])
    plain = dicom.mr_series(n=6, rows=16, cols=16)

    def procedure(datasets: list[Dataset], folder: str) -> str:
        ds = report(results.positive(datasets, tmp_path / folder), tmp_path / folder)
        return next(
            str(i.ConceptCodeSequence[0].CodeValue)
            for i in ds.ContentSequence
            if name(i) == "121058"
        )

    assert procedure(ordered, "ordered") == "CTHEAD"
    assert procedure(plain, "plain") == "24590-2"


def test_times_follow_the_clock_of_the_source(tmp_path: Path):
    """With a stated offset the time of creation is converted, without one it is kept."""
    zone = dt.timezone(dt.timedelta(hours=2))
    stated = dicom.ct_series(n=6, rows=16, cols=16, TimezoneOffsetFromUTC="-0500")
    silent = dicom.ct_series(n=6, rows=16, cols=16)
    moment = dt.datetime(2026, 11, 1, 1, 30, tzinfo=zone)

    with_offset = report(
        results.positive(stated, tmp_path / "a", created_at=moment), tmp_path / "a"
    )
    without = report(results.positive(silent, tmp_path / "b", created_at=moment), tmp_path / "b")

    assert (with_offset.ContentDate, with_offset.ContentTime) == ("20261031", "183000")
    assert with_offset.TimezoneOffsetFromUTC == "-0500"
    assert (without.ContentDate, without.ContentTime) == ("20261101", "013000")
    assert "TimezoneOffsetFromUTC" not in without


def test_foreign_words_are_written_in_ascii(tmp_path: Path):
    """A pack in another language cannot break the source's character set."""
    context = results.positive(dicom.ct_series(n=6, rows=16, cols=16), tmp_path)
    found = results.finding("h", display="Hémorragie", code=Code("H1", "99SITE", "Hémorragie"))
    french = dataclasses.replace(context.findings, findings=(found,))

    ds = report(dataclasses.replace(context, findings=french), tmp_path)

    assert [i.CodingSchemeDesignator for i in ds.CodingSchemeIdentificationSequence] == [
        "99SITE",
        "99WLAGENT",
    ]
    finding = [i for i in groups(ds)[1].ContentSequence if name(i) == "121071"]
    assert finding[0].ConceptCodeSequence[0].CodeMeaning == "Hemorragie"


def test_highdicom_reads_the_report(context: ResultContext, tmp_path: Path):
    """The template's reader finds the groups where the template puts them."""
    written = compose.compose_files(context, tmp_path / "out")
    content = hd.sr.srread(written[0][1]).content

    regions = content.get_volumetric_roi_measurement_groups()
    assert len(content.get_image_measurement_groups()) == 4
    assert [r.tracking_identifier for r in regions] == ["AI hemorrhage"]
    assert regions[0].reference_type == hd.sr.CodedConcept("121191", "DCM", "Referenced Segment")


def test_a_failed_analysis_without_a_pack_is_reported(context: ResultContext, tmp_path: Path):
    """A study that never reached a model has no model in its report."""
    none = dataclasses.replace(
        context.findings.pack, name="", version="", digest="", licence="", notice=""
    )
    answer = dataclasses.replace(
        context.findings, pack=none, findings=(), status=Status.NOT_ATTEMPTED, reason="no rule"
    )
    ds = report(dataclasses.replace(context, findings=answer), tmp_path)

    assert value(groups(ds)[0], "111001") == "none"
    assert [i.ManufacturerModelName for i in ds.ContributingEquipmentSequence] == [
        "Phantom",
        "worklist-agent",
    ]
