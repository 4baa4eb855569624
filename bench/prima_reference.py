"""The reference's order of operations for Prima, re-created from its description for comparison.

All tokens of a volume are doubled in memory and encoded 400 at a time before the background is
dropped; attention is dense over series padded to the longest; heads run one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.prima.hiervit import HierVit
from inference.prima.names import char_codes
from inference.prima.series import PrimaSeries
from inference.prima.transformer import Vit
from inference.prima.vqvae import VQVAE

CHUNK = 400


@torch.inference_mode()
def tokenize(model: VQVAE, series: PrimaSeries) -> Tensor:
    """Latents of the kept tokens, after encoding all of the volume's."""
    blocks = torch.from_numpy(series.patches.upsampled())
    parts = [model.encode(part.clone()) for part in torch.split(blocks, CHUNK)]
    return torch.cat(parts)[torch.from_numpy(series.kept)]


@torch.inference_mode()
def embed(visual: HierVit, series: Sequence[PrimaSeries], latents: Sequence[Tensor]) -> Tensor:
    """The study's embedding, every series padded to the longest."""
    rows = [
        visual.token_rows(latent, torch.from_numpy(one.coords), one.axis)
        for latent, one in zip(latents, series, strict=True)
    ]
    names = visual.name_rows([torch.from_numpy(char_codes(one.name)) for one in series])
    assert names is not None
    assert visual.studyencoder is not None
    sequences = [torch.cat((name[None], row)) for name, row in zip(names, rows, strict=True)]
    vectors = visual.innerViT.mlp_head(_pool(visual.innerViT, sequences))
    text = visual.studyencoder([torch.from_numpy(char_codes("MR BRAIN"))])
    return _pool(visual.outerViT, [torch.cat((text, vectors))])[0]


@torch.inference_mode()
def answer(heads: Sequence[tuple[nn.Sequential, int]], embedding: Tensor) -> Tensor:
    """One head after the other."""
    return torch.cat([head(embedding[None])[:, index] for head, index in heads])


def _pool(vit: Vit, sequences: Sequence[Tensor]) -> Tensor:
    registers = vit.cls_token[0]
    parts = [torch.cat((registers, s)) for s in sequences]
    x = nn.utils.rnn.pad_sequence(parts, batch_first=True)
    lengths = torch.tensor([len(part) for part in parts])
    mask = torch.arange(x.shape[1])[None] < lengths[:, None]
    for attend, feed in vit.transformer.layers:  # type: ignore[misc]
        x = x + _attention(attend.fn, attend.norm(x), mask)
        x = x + feed.fn(feed.norm(x))
    pooled: Tensor = vit.layernorm(x[:, : len(registers)])
    return pooled.flatten(1)


def _attention(layer: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Every L x L score matrix is formed, then masked."""
    heads: int = layer.heads  # type: ignore[assignment]
    q, k, v = layer.to_qkv(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # type: ignore[operator]
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
    mixed = functional.softmax(scores, dim=-1) @ v
    out: Tensor = layer.to_out(mixed.transpose(1, 2).flatten(2))  # type: ignore[operator]
    return out
