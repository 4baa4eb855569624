"""Study model, text tower and both learned temperatures; the forward pass is the joint loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inference.prima.hiervit import HierVit
from inference.prima.names import char_codes
from training import loop
from training.prima import objectives
from training.prima.sampling import ShownStudy
from training.prima.text_tower import TextTower
from training.runtime import Place


@dataclass(frozen=True, eq=False)
class Pairs:
    """Some studies and their reports.

    Attributes:
        studies: as shown.
        texts: ids of each report.
        numbers: of the studies, distinct over all processes.
    """

    studies: tuple[ShownStudy, ...]
    texts: tuple[tuple[int, ...], ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class JointBatch:
    """Micro-batches that pass the networks one after another and share one loss."""

    parts: tuple[Pairs, ...]


class ClipLoss(nn.Module):
    """Prima's CLIP under the published parameter names."""

    def __init__(self, visual: HierVit, text: TextTower, place: Place) -> None:
        super().__init__()
        self.visual_model = visual
        self.text_model = text
        self.temperature = nn.Parameter(torch.tensor([objectives.FIRST_TEMPERATURE]))
        self.patdistemperature = nn.Parameter(torch.tensor([objectives.FIRST_TAU]))
        self._place = place

    def forward(self, batch: JointBatch) -> tuple[Tensor, dict[str, float]]:
        """Joint loss of all parts and all processes, and its terms."""
        found = [self._part(part) for part in batch.parts]
        images, texts, series, numbers = (
            loop.gather(torch.cat(column).float(), self._place)
            for column in zip(*found, strict=True)
        )
        plain, scaled = objectives.clip_objective(images, texts, self.temperature)
        of = numbers.squeeze(1).long()
        apart = objectives.discrimination_objective(series, of, self.patdistemperature)
        values = {
            "clip": float(scaled.detach()),
            "unscaled": float(plain.detach()),
            "discrimination": float(apart.detach()),
            "temperature": float(self.temperature.detach()),
        }
        return objectives.total_objective(scaled, apart), values

    def study_vectors(self, studies: Sequence[ShownStudy]) -> tuple[Tensor, Tensor]:
        """Unit vectors [B, F] of studies, and pooled registers of all their series."""
        visual = self.visual_model
        series = [one for study in studies for one in study.series]
        rows = [
            visual.token_rows(s.latents.to(visual.device), s.coords.to(visual.device), s.axis)
            for s in series
        ]
        names = visual.name_rows([_codes(one.name) for one in series])
        pooled = visual.pool_series(rows, names)
        vectors = visual.innerViT.mlp_head(pooled)
        each = vectors.split([len(study.series) for study in studies])
        embeddings = visual.encode_studies(each, [_codes(study.description) for study in studies])
        return visual.clip_vectors(embeddings.float()), pooled

    def _part(self, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images, pooled = self.study_vectors(pairs.studies)
        counts = [len(study.series) for study in pairs.studies]
        owners = torch.tensor(pairs.numbers, dtype=torch.float32, device=pooled.device)
        of = owners.repeat_interleave(torch.tensor(counts, device=pooled.device))
        discriminated = self.visual_model.discriminate(pooled)
        return images, self.text_model(pairs.texts), discriminated, of.unsqueeze(1)


def _codes(text: str) -> Tensor:
    return torch.from_numpy(char_codes(text))
