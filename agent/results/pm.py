"""Parametric Map (float) of one finding's attention: how much each place weighed for the model.

The quantity is (130404, DCM, Saliency), 0 to 1. Frames lie on the planes of the source frames, one
to one; pixels are as coarse as `ResultOptions.map_pixels` allows, because attention is known per
token only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import highdicom as hd
import numpy as np
import numpy.typing as npt
import structlog
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from agent.results import context as contexts
from agent.results import headers, identity, masks, planes
from agent.results.material import Material, SourceStack
from agent.results.text import evidence, plain
from inference.findings import Finding, Grounding

log = structlog.get_logger(__name__)


def compose(
    material: Material, _made: Sequence[contexts.ComposedObject]
) -> Iterator[contexts.ComposedObject]:
    """One map for each grounded finding."""
    context = material.context
    for index, finding in enumerate(context.grounded):
        assert finding.grounding is not None  # noqa: S101  # what `grounded` promises
        stack = material.stack(finding.grounding)
        reason = planes.usable(stack, context.options.max_frames)
        if stack is None or reason:
            log.warning("map_not_made", analysis=context.analysis_id, reason=reason)
            continue
        yield _map(material, finding, index, stack)


def _map(
    material: Material, finding: Finding, index: int, stack: SourceStack
) -> contexts.ComposedObject:
    context, template = material.context, material.template
    assert finding.grounding is not None  # noqa: S101
    frame = stack.frames[0]
    coarseness = -(-max(frame.rows, frame.columns) // context.options.map_pixels)
    naming = headers.Naming("pm", finding.label, f"AI {finding.display} {evidence(finding)}", index)
    dataset = hd.pm.ParametricMap(
        source_images=planes.stand_ins(stack, range(len(stack.frames)), coarseness),
        pixel_array=_saliency(finding.grounding, planes.grid(stack, coarseness)),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(finding)],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="AI_SALIENCY",
        content_description=plain(f"AI {evidence(finding)}: {finding.display}", 64),
        content_creator_name=identity.CREATOR,
        content_qualification="RESEARCH",
        **headers.constructor_arguments(context, naming),
    )
    planes.point_at_source(dataset, stack)
    if coarseness > 1:
        _pixels_differ_from_source(dataset)
    return headers.finish(dataset, context, template, naming)


def _saliency(grounding: Grounding, grid: planes.Grid) -> npt.NDArray[np.float32]:
    """[K, R, C], 0 where the token grid does not reach."""
    values = np.zeros((len(grid.positions_mm), grid.rows, grid.columns), np.float32)
    for k, saliency in masks.saliency_frames(grounding, grid):
        np.clip(saliency, 0.0, 1.0, out=values[k])
    return values


def _mapping(finding: Finding) -> hd.pm.RealWorldValueMapping:
    return hd.pm.RealWorldValueMapping(
        lut_label="SALIENCY",
        lut_explanation=f"AI {evidence(finding)}, 0 to 1",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=codes.DCM.Saliency,
    )


def _pixels_differ_from_source(dataset: Dataset) -> None:
    """Larger pixels than the source's: its pixel coordinates do not apply to the map."""
    for item in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in item.get("DerivationImageSequence", []):
            for ref in derivation.SourceImageSequence:
                ref.SpatialLocationsPreserved = "NO"
