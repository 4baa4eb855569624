"""One study through encoder and connector: the images as a language model sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from inference.errors import PackError, VolumeError
from inference.neurovfm import batching
from inference.neurovfm.gathering import Gathered, gather
from inference.neurovfm.loading import LoadedPack
from inference.neurovfm.model import VisionTransformer
from inference.report.connector import VisionConnector
from inference.report.errors import PromptError
from inference.report.tokens import VisualTokens
from inference.study import StudyInput


def view(
    study: StudyInput,
    pack: LoadedPack,
    device: torch.device,
    tell: Callable[[str], None],
    scale: float,
) -> VisualTokens:
    """See `tokens.visual_tokens`."""
    connector, section = getattr(pack, "connector", None), pack.manifest.report
    if connector is None or section is None:
        raise PackError(f"pack {pack.manifest.name}: has no [report] section, it drafts no reports")
    gathered = gather(study, pack, tell)
    if not gathered.volumes:
        raise VolumeError(gathered.why_nothing)
    tell(f"showing {gathered.token_count} tokens to the connector")
    return _tokens(gathered, pack, connector, device, scale, rounded=section.rounded_buffers)


@torch.inference_mode()
def _tokens(
    gathered: Gathered,
    pack: LoadedPack,
    connector: VisionConnector,
    device: torch.device,
    scale: float,
    *,
    rounded: bool,
) -> VisualTokens:
    usual = batching.CUDA_TOKEN_BUDGET if device.type == "cuda" else batching.CPU_TOKEN_BUDGET
    packed = batching.pack(gathered.parts)
    with rounded_positions(pack.encoder.model, rounded):
        embedded = batching.embed(
            pack.encoder.model,
            packed,
            device=device,
            stats=pack.encoder.stats,
            use_amp=device.type == "cuda",
            token_budget=max(1, int(usual * scale)),
        )
    shown = connector(embedded, packed.lengths).float().cpu().contiguous()
    if not torch.isfinite(shown).all():
        raise PromptError("the connector gave NaN or infinite values; check the pack's weights")
    series = tuple(
        source.series_uid
        for volume, source in zip(gathered.volumes, gathered.sources, strict=True)
        for _ in volume.series
    )
    return VisualTokens(series, shown.numpy())


@contextmanager
def rounded_positions(model: VisionTransformer, rounded: bool) -> Iterator[None]:
    """The encoder with rounded position codes for a while; its heads were trained without."""
    before, model.rounded_positions = model.rounded_positions, rounded
    try:
        yield
    finally:
        model.rounded_positions = before
