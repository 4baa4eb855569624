"""Secondary Capture (RGB) of a summary page, for viewers that show neither SR nor SEG.

It is never the only result: it repeats what the report says. No patient identity is drawn on it;
whose page it is stands in the header alone, where a PACS can correct it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
import numpy.typing as npt
import structlog
from PIL import Image
from pydicom.valuerep import DA, TM

from agent.results import context as contexts
from agent.results import headers, identity, masks, page, planes
from agent.results.material import Material, SourceStack
from agent.results.text import plain
from inference.explain import overlay_png, window_for
from inference.findings import Finding, Grounding
from inference.volumes import pixels

log = structlog.get_logger(__name__)

PICTURE_PX = 1024


def compose(
    material: Material, _made: Sequence[contexts.ComposedObject]
) -> Iterator[contexts.ComposedObject]:
    """The one summary page."""
    context, template = material.context, material.template
    naming = headers.Naming("sc", "", "AI triage summary")
    neutral = identity.neutral(template)
    dataset = hd.sc.SCImage(
        pixel_array=page.render(_content(material)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=neutral.StudyInstanceUID,
        **headers.constructor_arguments(context, naming),
    )
    dataset.PatientOrientation = []  # a page has none; Type 2C, so it stays, empty
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    moment = headers.local_time(context, template)
    dataset.DateOfSecondaryCapture = DA(moment.strftime("%Y%m%d"))
    dataset.TimeOfSecondaryCapture = TM(moment.strftime("%H%M%S"))
    yield headers.finish(dataset, context, template, naming)


def _content(material: Material) -> page.Content:
    context = material.context
    findings, priority = context.findings, context.priority
    key = _key_picture(material)
    return page.Content(
        level=priority.level,
        ordered=priority.ordered or "",
        reason=plain(priority.reason, 200),
        status=findings.status,
        status_reason=plain(findings.reason, 300),
        findings=findings.findings,
        picture=key.picture if key else None,
        sides=key.sides if key else ("", ""),
        caption=key.caption if key else "",
        notice=findings.pack.notice,
        details=_details(material),
    )


def _details(material: Material) -> tuple[tuple[str, str], ...]:
    """Label and value of what the page says about the analysis itself."""
    context = material.context
    pack, device = context.findings.pack, context.installation
    moment = headers.local_time(context, material.template)
    read = sum(s.used for s in context.findings.series)
    skipped = len(context.findings.series) - read
    revision = f", revision {context.revision}" if context.revision > 1 else ""
    return (
        ("Model", f"{pack.name} {pack.version}" if pack.name else "none"),
        ("Weights", f"sha256 {pack.digest[:16]}" if pack.digest else "none"),
        ("Software", f"{device.product} {device.version} ({plain(device.node_name, 32)})"),
        ("Analyzed", f"{moment:%Y-%m-%d %H:%M:%S}{revision}"),
        ("Series", f"{read} read" + (f", {skipped} not used" if skipped else "")),
        ("Analysis", context.analysis_id),
    )


@dataclass(frozen=True)
class _Key:
    picture: npt.NDArray[np.uint8]
    sides: tuple[str, str]
    caption: str


def _key_picture(material: Material) -> _Key | None:
    """The most probable located finding's key slice with its attention."""
    for finding in material.context.grounded:
        stack = material.stack(finding.grounding) if finding.grounding else None
        if finding.grounding is None or stack is None:
            continue
        decoded = pixels.decode([stack.frames[stack.key]])
        if decoded.failed:
            log.warning("key_slice_not_decoded", analysis=material.context.analysis_id)
            continue
        picture = _overlay(decoded.array[0], finding.grounding, stack)
        axes = stack.geometry.affine
        # Directions grow to the right and downwards: the left and top edges are opposite.
        sides = (direction(-axes[:3, 2]), direction(-axes[:3, 1]))
        return _Key(picture, sides, _caption(finding, stack))
    return None


def direction(vector_lps: npt.NDArray[np.float64]) -> str:
    """The patient direction a vector points to: one letter, two or three where it is oblique."""
    unit = vector_lps / np.linalg.norm(vector_lps)
    letters = [
        (abs(value), names[0] if value > 0 else names[1])
        for value, names in zip(unit, ("LR", "PA", "HF"), strict=True)
        if abs(value) > 0.25
    ]
    return "".join(letter for _, letter in sorted(letters, reverse=True))


def _overlay(
    values: npt.NDArray[np.generic], grounding: Grounding, stack: SourceStack
) -> npt.NDArray[np.uint8]:
    grid = planes.grid(stack)
    saliency = masks.saliency_of(grounding, grid, stack.key)
    png = overlay_png(
        values,
        saliency,
        window_for(stack.frames[0].modality, values),
        threshold=grounding.threshold,
        pixel_spacing_mm=stack.geometry.spacing_mm[1:],
        size_px=PICTURE_PX,
    )
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def _caption(finding: Finding, stack: SourceStack) -> str:
    frame = stack.frames[stack.key]
    where = f"frame {frame.frame_number}" if frame.frames_in_file > 1 else ""
    where = where or (f"image {frame.instance_number}" if frame.instance_number else "key image")
    return plain(f"{finding.display}, {where} ({stack.key + 1} of {len(stack.frames)})", 90)
