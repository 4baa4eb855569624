"""From the model's token grid back to the pictures: masks, key slices, overlays, agreement."""

from inference.explain.agreement import dice, pointing_hit
from inference.explain.overlay import Window, overlay_png, window_for
from inference.explain.resample import finding_mask, key_slice, resample_to_volume

__all__ = [
    "Window",
    "dice",
    "finding_mask",
    "key_slice",
    "overlay_png",
    "pointing_hit",
    "resample_to_volume",
    "window_for",
]
