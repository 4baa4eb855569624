"""NeuroVFM with the official interface: change the import line and keep the rest.

    from inference.neurovfm import load_encoder, load_diagnostic_head

    encoder, preprocessor = load_encoder("path/or/hub-id")
    head = load_diagnostic_head("path/or/hub-id")
    batch = preprocessor.load_study("study/", modality="ct")
    predictions = head.predict(encoder.embed(batch), batch)

Names are loaded when first used, so that reading labels or a pack does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.neurovfm.pipeline import (
        DiagnosticHead,
        EncoderPipeline,
        load_diagnostic_head,
        load_encoder,
    )
    from inference.neurovfm.studies import StudyPreprocessor
    from inference.neurovfm.vlm import interpret_findings, load_vlm

__all__ = [
    "DiagnosticHead",
    "EncoderPipeline",
    "StudyPreprocessor",
    "interpret_findings",
    "load_diagnostic_head",
    "load_encoder",
    "load_vlm",
]

_HOMES = {
    "DiagnosticHead": "pipeline",
    "EncoderPipeline": "pipeline",
    "StudyPreprocessor": "studies",
    "interpret_findings": "vlm",
    "load_diagnostic_head": "pipeline",
    "load_encoder": "pipeline",
    "load_vlm": "vlm",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
