"""Which series are offered to a model, and the reason a user sees for the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.volumes.eligibility import SeriesSummary, image_type, judge

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
AXIAL = SeriesSummary(
    modality="CT",
    sop_classes=frozenset({CT}),
    frames=30,
    image_types=(("ORIGINAL", "PRIMARY", "AXIAL"),),
    photometric=frozenset({"MONOCHROME2"}),
    description="HEAD AXIAL 5.0",
)


def test_an_axial_series_is_eligible():
    """No reason means eligible."""
    assert judge(AXIAL).eligible
    assert judge(AXIAL, "CT").eligible
    assert judge(AXIAL).reason == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_types": (("ORIGINAL", "PRIMARY", "LOCALIZER"),)}, "localizer"),
        ({"image_types": (("DERIVED", "SECONDARY", "MIP"),)}, "derived projection"),
        ({"image_types": (("DERIVED", "SECONDARY", "SCREEN SAVE"),)}, "screen save"),
        ({"image_types": (("DERIVED", "SECONDARY", "OTHER"),)}, "derived secondary images"),
        ({"image_types": (("ORIGINAL", "SECONDARY"),)}, "secondary images"),
        (
            {"image_types": (("ORIGINAL", "PRIMARY", "M", "MOSAIC"),)},
            "mosaic of slices in one image",
        ),
        ({"frames": 1}, "single slice"),
        ({"frames": 3}, "only 3 slices, needs 4"),
        ({"frames": 0}, "only 0 slices, needs 4"),
        ({"photometric": frozenset({"RGB"})}, "color images"),
        ({"photometric": frozenset({"PALETTE COLOR"})}, "color images"),
        ({"burned_in": True}, "annotation burned into the pixels"),
        ({"description": "Dose Report"}, "dose report"),
        ({"description": "Patient Protocol"}, "dose report"),
        ({"description": "3-plane LOC survey"}, "localizer"),
        ({"description": "LOCALISER"}, "localizer"),
        ({"description": "Screen Save"}, "screen save"),
        ({"modality": "PT", "sop_classes": frozenset()}, "modality PT"),
        ({"modality": "", "sop_classes": frozenset()}, "modality unknown"),
        ({"sop_classes": frozenset({"1.2.840.10008.5.1.4.1.1.7"})}, "secondary capture"),
        ({"sop_classes": frozenset({"1.2.840.10008.5.1.4.1.1.7.4"})}, "secondary capture"),
        ({"sop_classes": frozenset({"1.2.840.10008.5.1.4.1.1.88.67"})}, "structured report"),
        (
            {"sop_classes": frozenset({"1.2.840.10008.5.1.4.1.1.66.4"})},
            "segmentation or raw data",
        ),
        ({"sop_classes": frozenset({"1.2.840.10008.5.1.4.1.1.481.2"})}, "no CT or MR images"),
    ],
)
def test_unreadable_series_have_a_reason(change: dict, reason: str):
    """Localizers, derived and captured pictures, reports, color and single slices."""
    verdict = judge(replace(AXIAL, **change))
    assert not verdict.eligible
    assert verdict.reason == reason


@pytest.mark.parametrize(
    "change",
    [
        {"image_types": (("DERIVED", "PRIMARY", "MPR"),)},
        {"image_types": (("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"),)},
        {"image_types": (("ORIGINAL", "PRIMARY", "AXIAL"), ("DERIVED", "SECONDARY"))},
        {"image_types": ()},
        {"photometric": frozenset()},
        {"description": "SCOUTING PARTY"},
        {"description": "T2 dose"},
        {"sop_classes": frozenset({"1.2.840.10008.5.1.4.1.1.2.1"})},
    ],
)
def test_doubt_is_no_reason(change: dict):
    """Unknown attributes, primary reformats, and one stray capture leave a series eligible."""
    assert judge(replace(AXIAL, **change)).eligible


def test_the_other_modality_is_named():
    """A CT series is no input of an MR model."""
    assert judge(AXIAL, "MR").reason == "modality CT, the model reads MR"


def test_image_type_reads_text_and_values():
    """The database keeps text, pydicom gives values."""
    assert image_type("original\\Primary \\AXIAL") == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert image_type(["ORIGINAL", "PRIMARY"]) == ("ORIGINAL", "PRIMARY")
