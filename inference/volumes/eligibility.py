"""Whether a series is worth reading at all, from what its headers say; the reason is kept.

Pure and free of imaging libraries: routing asks it with what the index knows of a series, the
volume reader's own checks (geometry, slices, pixel data) come later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

VOLUME_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",  # Enhanced
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",  # Legacy Converted Enhanced
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",  # Enhanced
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",  # Legacy Converted Enhanced
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
OTHER_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.88": "structured report",
    "1.2.840.10008.5.1.4.1.1.66": "segmentation or raw data",
    "1.2.840.10008.5.1.4.1.1.11": "presentation state",
    "1.2.840.10008.5.1.4.1.1.104": "encapsulated document",
    "1.2.840.10008.5.1.4.1.1.30": "parametric map",
    SECONDARY_CAPTURE: "secondary capture",
}
"""Stems of SOP class UIDs, with the reason a reader sees."""
LOCALIZER_TYPES = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})
PROJECTIONS = frozenset(
    {"MIP", "MINIP", "MNIP", "PROJECTION IMAGE", "VOLUME RENDERED", "VRT", "SSD", "COLLAGE"}
)
SCREENS = frozenset({"SCREEN SAVE", "SCREENSAVE", "SSAVE", "SCREEN", "POSDISP", "REPORT"})
GRAYSCALE = frozenset({"", "MONOCHROME1", "MONOCHROME2"})

# Looked for only as whole words, and only after the coded attributes said nothing.
DESCRIPTION_WORDS = re.compile(
    r"\b(?:(?P<localizer>locali[sz]ers?|scouts?|topograms?|surview|survey|3[- ]?plane|plan scan)"
    r"|(?P<dose>dose (?:report|info|page|summary)|patient protocol)"
    r"|(?P<screen>screen ?(?:saves?|captures?|shots?)))\b",
    re.IGNORECASE,
)
WORD_REASONS = {"localizer": "localizer", "dose": "dose report", "screen": "screen save"}
MIN_SLICES = 4


@dataclass(frozen=True)
class SeriesSummary:
    """What an index knows of one series; empty means unknown.

    Attributes:
        modality: Modality (0008,0060).
        sop_classes: SOP Class UIDs that occur.
        frames: images, counting every frame of multi-frame instances.
        image_types: distinct values of ImageType (0008,0008), each split at the backslash.
        photometric: distinct values of PhotometricInterpretation (0028,0004).
        description: SeriesDescription (0008,103E).
        burned_in: some image says BurnedInAnnotation (0028,0301) YES.
    """

    modality: str
    sop_classes: frozenset[str] = frozenset()
    frames: int = 0
    image_types: tuple[tuple[str, ...], ...] = ()
    photometric: frozenset[str] = frozenset()
    description: str = ""
    burned_in: bool = False


@dataclass(frozen=True)
class Eligibility:
    """The verdict on a series; `reason` is empty if and only if it is eligible."""

    reason: str = ""

    @property
    def eligible(self) -> bool:
        """Whether the series may be given to a model."""
        return not self.reason


def judge(series: SeriesSummary, modality: str | None = None) -> Eligibility:
    """Decide whether a series can be read by a CT or MR model.

    Args:
        series: what is known of it.
        modality: the modality the model reads, or None for either.
    """
    return Eligibility(
        _class_reason(series, modality)
        or _type_reason(series)
        or _pixel_reason(series)
        or _description_reason(series)
        or _count_reason(series)
    )


def _class_reason(series: SeriesSummary, modality: str | None) -> str:
    readable = {VOLUME_CLASSES[uid] for uid in series.sop_classes if uid in VOLUME_CLASSES}
    if series.sop_classes and not readable:
        for uid in sorted(series.sop_classes):
            for stem, name in OTHER_CLASSES.items():
                if uid == stem or uid.startswith(f"{stem}."):
                    return name
        return "no CT or MR images"
    found = series.modality.upper()
    if found not in {"CT", "MR"}:
        return f"modality {found or 'unknown'}"
    if modality is not None and found != modality:
        return f"modality {found}, the model reads {modality}"
    return ""


def _type_reason(series: SeriesSummary) -> str:
    """A reason only if every image has one: one stray derived image does not spoil a series."""
    reasons = [_one_type_reason(t) for t in series.image_types if t]
    return reasons[0] if reasons and all(reasons) else ""


def _one_type_reason(image_type: tuple[str, ...]) -> str:
    values = {v.strip().upper() for v in image_type}
    if values & LOCALIZER_TYPES:
        return "localizer"
    if values & SCREENS:
        return "screen save"
    if values & PROJECTIONS:
        return "derived projection"
    if "MOSAIC" in values:
        return "mosaic of slices in one image"
    first = image_type[0].strip().upper()
    second = image_type[1].strip().upper() if len(image_type) > 1 else ""
    if second == "SECONDARY":
        return "derived secondary images" if first == "DERIVED" else "secondary images"
    return ""


def _pixel_reason(series: SeriesSummary) -> str:
    if series.photometric and not {p.upper() for p in series.photometric} & GRAYSCALE:
        return "color images"
    return "annotation burned into the pixels" if series.burned_in else ""


def _description_reason(series: SeriesSummary) -> str:
    found = DESCRIPTION_WORDS.search(series.description)
    return WORD_REASONS[found.lastgroup] if found and found.lastgroup else ""


def _count_reason(series: SeriesSummary) -> str:
    if series.frames == 1:
        return "single slice"
    if series.frames < MIN_SLICES:
        return f"only {series.frames} slices, needs {MIN_SLICES}"
    return ""


def image_type(values: Iterable[str] | str) -> tuple[str, ...]:
    """ImageType as received (text with backslashes or values) as a tuple of upper-case values."""
    parts = values.split("\\") if isinstance(values, str) else values
    return tuple(part.strip().upper() for part in parts)
