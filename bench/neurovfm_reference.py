"""The reference's algorithms, re-created from their description for the benchmark beside ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation
import torch
from torch import Tensor
from torch.nn import functional

from inference.neurovfm.tokens import CT_WINDOWS


class PaddedAttention(torch.nn.Module):
    """All series padded to the longest, every score formed, padding masked by finfo.min."""

    def __init__(self, mixer: Any, lengths: tuple[int, ...]) -> None:
        super().__init__()
        self.mixer, self.lengths = mixer, lengths

    def forward(self, x: Tensor, _segments: object) -> Tensor:
        """[N, E] -> [N, E]."""
        longest = max(self.lengths)
        q, k, v = (self._pad(part, longest) for part in self.mixer.split(x))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        kept = torch.arange(longest) < torch.tensor(self.lengths).unsqueeze(1)
        scores = scores.masked_fill(~kept[:, None, None, :], torch.finfo(scores.dtype).min)
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        return self.mixer.proj(
            torch.cat([row[:n] for row, n in zip(mixed, self.lengths, strict=True)])
        )

    def _pad(self, x: Tensor, longest: int) -> Tensor:
        parts = [
            functional.pad(p, (0, 0, 0, 0, 0, longest - len(p)))
            for p in x.split(list(self.lengths))
        ]
        return torch.stack(parts).transpose(1, 2)


def pool(head: Any, x: Tensor, labels: int) -> Tensor:
    """Gated attention with a Python loop over classes."""
    gated = head.attention_V(x).tanh() * head.gating_V(x).sigmoid()
    scores, patch = head.W(gated), head.mlp(x)
    logits = [(scores[:, i].softmax(0) * patch[:, i]).sum() for i in range(labels)]
    return torch.stack(logits) * head.output_scale + head.output_bias


def preprocess_file(file: str, modality: str) -> list[Tensor]:
    """Read, orient, resample, crop, window whole volumes in float64, cut, drop background."""
    image = sitk.DICOMOrient(sitk.ReadImage(file), "RPI")
    resampled = resample(image)
    size = resampled.GetSize()
    whole = [n // side * side for n, side in zip(size, (16, 16, 4), strict=True)]
    start = [n % side // 2 for n, side in zip(size, (16, 16, 4), strict=True)]
    cropped = sitk.Extract(resampled, whole, start)
    return _tokens(sitk.GetArrayFromImage(cropped).astype(np.float64), modality)


def resample(image: sitk.Image) -> sitk.Image:
    """Cubic B-spline to 1 x 1 x 4 mm."""
    spacing = (1.0, 1.0, 4.0)
    size = [
        int(n * s / t) for n, s, t in zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)
    ]
    return sitk.Resample(
        image,
        size,
        sitk.Transform(),
        sitk.sitkBSpline,
        image.GetOrigin(),
        spacing,
        image.GetDirection(),
        0.0,
        image.GetPixelID(),
    )


def _tokens(volume: Any, modality: str) -> list[Tensor]:
    if modality == "CT":
        mask = volume > -500
        edges = [(level - width / 2, level + width / 2) for width, level in CT_WINDOWS.values()]
        scaled = [(np.clip(volume, lo, hi) - lo) / (hi - lo + 1e-8) for lo, hi in edges]
    else:
        mask = volume > np.percentile(volume, 10)
        clipped = np.clip(volume, np.percentile(volume, 0.5), np.percentile(volume, 99.5))
        low, high = clipped.min(), clipped.max()
        scaled = [(clipped - low) / (high - low + 1e-8)]
    kept = _blocks(mask).all(dim=1)
    return [_blocks(values)[kept].float() for values in scaled]


def _blocks(values: Any) -> Tensor:
    x = torch.from_numpy(values)
    d, h, w = (n // side for n, side in zip(x.shape, (4, 16, 16), strict=True))
    return x.reshape(d, 4, h, 16, w, 16).permute(0, 2, 4, 1, 3, 5).reshape(d * h * w, -1)
