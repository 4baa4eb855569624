"""Segmentation (BINARY) of one grounded finding: where the model's attention is at its threshold.

The mask shows where the model looked. It is not a measured outline, and says so in the segment's
label and description; no volume is derived from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import highdicom as hd
import numpy as np
import structlog
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from agent.results import codes as concepts
from agent.results import context as contexts
from agent.results import equipment, headers, identity, masks, planes
from agent.results.material import Material, SourceStack
from agent.results.text import evidence, plain
from inference.findings import Finding

log = structlog.get_logger(__name__)

DESCRIPTION = (
    "Area where the {what} of the model for this finding reaches its threshold. "
    "AI generated, not reviewed by a physician, not a measured outline. Research use only."
)
COLORS = (
    (255, 64, 32), (255, 176, 0), (0, 190, 255), (170, 90, 255),
    (0, 200, 110), (255, 90, 180), (120, 160, 255), (200, 200, 60),
)  # fmt: skip


def compose(
    material: Material, _made: Sequence[contexts.ComposedObject]
) -> Iterator[contexts.ComposedObject]:
    """One SEG for each grounded finding whose mask is not empty."""
    context = material.context
    for index, finding in enumerate(context.grounded):
        assert finding.grounding is not None  # noqa: S101  # what `grounded` promises
        stack = material.stack(finding.grounding)
        reason = planes.usable(stack, context.options.max_frames)
        if stack is None or reason:
            log.warning("seg_not_made", analysis=context.analysis_id, reason=reason)
            continue
        frames = masks.masked_frames(finding.grounding, planes.grid(stack))
        if not frames:
            log.warning("seg_not_made", analysis=context.analysis_id, reason="empty mask")
            continue
        yield _segmentation(material, finding, index, stack, frames)


def _segmentation(
    material: Material,
    finding: Finding,
    index: int,
    stack: SourceStack,
    frames: list[tuple[int, masks.Mask]],
) -> contexts.ComposedObject:
    context, template = material.context, material.template
    naming = headers.Naming("seg", finding.label, f"AI {finding.display} area", index)
    dataset = hd.seg.Segmentation(
        source_images=planes.stand_ins(stack, [k for k, _ in frames]),
        pixel_array=np.stack([mask for _, mask in frames]),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(context, finding, index)],
        content_label="AI_AREA",
        content_description=plain(f"AI {evidence(finding)} area: {finding.display}", 64),
        content_creator_name=identity.CREATOR,
        **headers.constructor_arguments(context, naming),
    )
    planes.point_at_source(dataset, stack)
    _identify_segment_per_frame(dataset)
    described = DESCRIPTION.format(what=evidence(finding))
    dataset.SegmentSequence[0].SegmentDescription = described
    return headers.finish(dataset, context, template, naming)


def _segment(
    context: contexts.ResultContext, finding: Finding, index: int
) -> hd.seg.SegmentDescription:
    pack = context.findings.pack
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=plain(f"{finding.display} (AI {evidence(finding)})", 64),
        segmented_property_category=concepts.ABNORMAL_STRUCTURE,
        segmented_property_type=concepts.segment_type(finding),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=plain(pack.name, 64),
            family=codes.cid7162.ArtificialIntelligence,
            version=equipment.algorithm_version(pack),
        ),
        tracking_uid=context.uid("tracking", "finding", finding.label),
        tracking_id=tracking_id(finding),
        anatomic_regions=[concepts.site(finding)],
        display_color=hd.color.CIELabColor.from_rgb(*COLORS[index % len(COLORS)]),
    )


def tracking_id(finding: Finding) -> str:
    """Name that the report and the segment share, beside their tracking UID."""
    return plain(f"AI {finding.label}", 64)


def _identify_segment_per_frame(dataset: Dataset) -> None:
    """Say in each frame which segment it shows.

    highdicom says it once for all frames of a one-segment SEG, which is legal, but viewers built
    on older dcmjs look for it per frame only.
    """
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:
        del shared.SegmentIdentificationSequence
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        item = Dataset()
        item.ReferencedSegmentNumber = 1
        frame.SegmentIdentificationSequence = [item]
