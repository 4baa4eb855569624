"""Our own results are recognized when a PACS sends them back."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from factories import dicom, result_cases, results

from agent.results import compose, own
from agent.results.context import ResultContext

DEVICE = results.INSTALLATION.device_uid
PRODUCT = results.INSTALLATION.product


@pytest.mark.parametrize("case", ["axial_ct", "failed", "enhanced_mr"])
def test_every_result_is_recognized(case: str, tmp_path: Path):
    """By the Device UID, in every kind, from the header alone."""
    context = result_cases.CASES[case](tmp_path / "source")
    for _, path in compose.compose_files(context, tmp_path / "out"):
        header = pydicom.dcmread(path, specific_tags=list(own.KEYWORDS), stop_before_pixels=True)

        assert own.is_own_result(header, DEVICE)


def test_a_result_without_its_device_uid_is_recognized_by_its_contributors(
    context: ResultContext,
):
    """An archive that drops the root attribute does not start a loop."""
    (made,) = compose.compose(context, ["sr"])
    del made.dataset.DeviceUID

    assert own.is_own_result(made.dataset, DEVICE)


def test_results_of_another_installation_count_by_product(context: ResultContext):
    """With the product given, a second agent's results do not trigger the first."""
    (made,) = compose.compose(context, ["sc"])

    assert not own.is_own_result(made.dataset, "2.25.1")
    assert own.is_own_result(made.dataset, "2.25.1", PRODUCT)


def test_scanner_images_are_not_ours(context: ResultContext):
    """Neither the source nor an image without any equipment is taken for a result."""
    source = pydicom.dcmread(context.sources[0].files[0])

    assert not own.is_own_result(source, DEVICE, PRODUCT)
    assert not own.is_own_result(pydicom.Dataset(), DEVICE, PRODUCT)
    assert not own.is_own_result(pydicom.Dataset(), "")


def test_the_series_of_an_analysis_are_known_without_its_files(context: ResultContext):
    """Identifiers alone tell our series in a query's answer."""
    made = {one.series_uid for one in compose.compose(context)}
    labels = [f.label for f in context.findings.findings]

    known = own.own_series_uids(context.analysis_id, labels)

    assert made <= known
    assert dicom.uid("other") not in known
