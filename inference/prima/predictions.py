"""The published pipeline's result file: scores by name, and the study's embedding."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference.errors import InferenceError

PRIORITY_LEVELS: Mapping[int, tuple[str, ...]] = {
    4: ("none", "low", "medium", "high"),
    3: ("none", "low", "high"),
}
"""By the number of outputs of the priority head."""

Document = dict[str, Any]


def document(
    diagnosis: Mapping[str, float],
    referral: Mapping[str, float],
    priority: Mapping[str, float],
    clip_emb: Sequence[float],
) -> Document:
    """The result of one study in the published layout: every score in a list of one.

    Args:
        diagnosis: logit minus threshold by name; 0 or more is positive.
        referral: likewise.
        priority: raw outputs by level; the largest is the answer.
        clip_emb: the study's pooled embedding.

    Raises:
        InferenceError: one of the numbers is none (NaN, infinite); it must not look like a score.
    """
    scores = (*diagnosis.values(), *referral.values(), *priority.values(), *clip_emb)
    if not all(map(math.isfinite, scores)):
        raise InferenceError(
            "the model answered with values that are no numbers: on a GPU, try device cpu; else "
            "the checkpoint is damaged"
        )
    return {
        "diagnosis": {name: [float(score)] for name, score in diagnosis.items()},
        "referral": {name: [float(score)] for name, score in referral.items()},
        "priority": {name: [float(score)] for name, score in priority.items()},
        "clip_emb": [[float(value) for value in clip_emb]],
    }


def write(result: Document, file: Path) -> None:
    """Write a result file whole or not at all; its directory is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        json.dump(result, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)
