"""Attention maps hold the saliency, at the places of the source frames."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from factories import dicom, results
from pydicom.dataset import Dataset

from agent.results import compose
from agent.results.context import ResultContext
from agent.results.material import Material
from inference.explain import resample_to_volume


def attention(context: ResultContext, map_pixels: int = 128) -> Dataset:
    """The one map of a context."""
    options = dataclasses.replace(context.options, map_pixels=map_pixels)
    (made,) = compose.compose(dataclasses.replace(context, options=options), ["pm"])
    return made.dataset


def values(ds: Dataset) -> np.ndarray:
    """float32 [K, R, C]."""
    pixels = np.frombuffer(ds.FloatPixelData, "<f4")
    return pixels.reshape(ds.NumberOfFrames, ds.Rows, ds.Columns)


def test_values_are_the_saliency_at_the_source_pixels(context: ResultContext):
    """One frame per source frame, each pixel the interpolated attention."""
    grounding = context.findings.findings[0].grounding
    assert grounding is not None
    stack = Material(context).stack(grounding)
    assert stack is not None
    expected = resample_to_volume(
        grounding,
        stack.geometry.affine,
        (len(stack.frames), stack.frames[0].rows, stack.frames[0].columns),
        stack.geometry.positions_mm,
    )

    ds = attention(context)

    by_uid = {frame.sop_uid: k for k, frame in enumerate(stack.frames)}
    shown = set()
    for frame, plane in zip(ds.PerFrameFunctionalGroupsSequence, values(ds), strict=True):
        (ref,) = frame.DerivationImageSequence[0].SourceImageSequence
        shown.add(by_uid[ref.ReferencedSOPInstanceUID])
        np.testing.assert_allclose(plane, expected[by_uid[ref.ReferencedSOPInstanceUID]], atol=1e-5)
    assert shown == set(range(16))


@pytest.mark.parametrize(("modality", "plane"), [("CT", "axial"), ("MR", "oblique")])
def test_coarse_maps_lie_where_fine_ones_do(modality: str, plane: str, tmp_path: Path):
    """Fewer, larger pixels move the center of attention by less than a source pixel."""
    make = dicom.ct_series if modality == "CT" else dicom.mr_series
    datasets = make(n=12, rows=64, cols=50, plane=plane)
    context = results.positive(datasets, tmp_path)

    fine, coarse = attention(context), attention(context, 16)

    assert (coarse.Rows, coarse.Columns) == (16, 13)
    assert coarse.NumberOfFrames == fine.NumberOfFrames == 12
    assert np.abs(center(fine) - center(coarse)).max() < 1.5


def center(ds: Dataset) -> np.ndarray:
    """Saliency-weighted mean position (LPS, mm)."""
    shared = ds.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    rows, columns = np.mgrid[: ds.Rows, : ds.Columns]
    total, weight = np.zeros(3), 0.0
    for frame, plane in zip(ds.PerFrameFunctionalGroupsSequence, values(ds), strict=True):
        origin = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        points = (
            origin
            + columns[..., None] * cosines[:3] * spacing[1]
            + rows[..., None] * cosines[3:] * spacing[0]
        )
        total += (points * plane[..., None]).sum(axis=(0, 1))
        weight += float(plane.sum())
    return total / weight


def test_the_quantity_is_named(context: ResultContext):
    """(130404, DCM, Saliency), 0 to 1, research."""
    ds = attention(context)
    mapping = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]

    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "130404"
    assert (mapping.DoubleFloatRealWorldValueFirstValueMapped, ds.ContentQualification) == (
        0.0,
        "RESEARCH",
    )
    assert 0.0 <= values(ds).min() <= values(ds).max() <= 1.0
