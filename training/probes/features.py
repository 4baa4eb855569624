"""Tokens of whole studies through the frozen encoder, computed once and kept in half precision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog
import torch

from inference.neurovfm.model import VisionTransformer
from inference.neurovfm.tokens import DEFAULT_STATS, Stats, Window, normalise
from training.data.sampling import read_sample
from training.data.shards import Cache, CachedStudy
from training.runtime import Place

log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class StudyFeatures:
    """What the probes see of a study.

    Attributes:
        study: its identifier.
        modality: ``CT`` or ``MR``.
        features: float16 [N, E], tokens of all its series one after another.
    """

    study: str
    modality: str
    features: npt.NDArray[np.float16]


def embed_studies(
    encoder: VisionTransformer,
    cache: Cache,
    studies: Sequence[CachedStudy],
    folder: Path,
    place: Place,
    stats: Stats = DEFAULT_STATS,
) -> list[StudyFeatures]:
    """Features of every study, mapped from `folder`; what lies there already is not made again.

    Another encoder makes its own files: their name holds a digest of its weights.
    """
    folder = folder / _digest(encoder)
    folder.mkdir(parents=True, exist_ok=True)
    encoder = encoder.to(place.device).eval()
    found = []
    for number, study in enumerate(studies):
        path = folder / f"{hashlib.sha256(study.study.encode()).hexdigest()[:32]}.npy"
        if not path.is_file():
            made = embed(encoder, cache, study, place, stats)
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                np.save(file, made)
            temporary.replace(path)
        if (number + 1) % 50 == 0 or number + 1 == len(studies):
            log.info("studies_embedded", done=number + 1, of=len(studies))
        found.append(StudyFeatures(study.study, modality_of(study), np.load(path, mmap_mode="r")))
    return found


@torch.no_grad()
def embed(
    encoder: VisionTransformer,
    cache: Cache,
    study: CachedStudy,
    place: Place,
    stats: Stats = DEFAULT_STATS,
) -> npt.NDArray[np.float16]:
    """Features of one study: float16 [N, E]."""
    samples = [read_sample(cache, one) for one in study.series]
    tokens = np.concatenate([normalise(s.tokens, Window(s.window), stats) for s in samples])
    coords = np.concatenate([s.coords for s in samples])
    edges = np.cumsum([0, *(len(s.coords) for s in samples)])
    kind = place.device.type
    with torch.autocast(kind, place.dtype or torch.bfloat16, place.dtype is not None):
        out = encoder(
            torch.from_numpy(tokens.astype(np.float32)).to(place.device),
            torch.from_numpy(coords).to(place.device),
            torch.from_numpy(edges),
        )
    made: npt.NDArray[np.float16] = out.float().cpu().numpy().astype(np.float16)
    return made


def modality_of(study: CachedStudy) -> str:
    """The modality most of a study's series have."""
    modalities = [one.modality for one in study.series]
    return max(sorted(set(modalities)), key=modalities.count)


def _digest(encoder: VisionTransformer) -> str:
    digest = hashlib.sha256(json.dumps(str(encoder.config)).encode())
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
