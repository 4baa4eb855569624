"""Puts visual tokens into the places of a prompt, row by row, and evens the rows of a batch.

Shape legend: B studies, T tokens before and U after splicing, S series, Q queries, D width of the
language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.report.errors import PromptError
from inference.report.prompt import IGNORED


@dataclass(frozen=True, eq=False)
class PromptBatch:
    """Prompts of several studies, padded on the left: ids, mask and labels int64 [B, T]."""

    ids: Tensor
    mask: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> PromptBatch:
        """The same on a device."""
        return PromptBatch(self.ids.to(device), self.mask.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class SplicedBatch:
    """Prompts with their visual tokens: embeds [B, U, D]; ids, mask and labels int64 [B, U]."""

    embeds: Tensor
    ids: Tensor
    mask: Tensor
    labels: Tensor


def collate(
    rows: Sequence[Sequence[int]],
    pad_id: int,
    *,
    labels: Sequence[Sequence[int]] | None = None,
    attend_padding: bool = False,
) -> PromptBatch:
    """Pad rows on the left to one length.

    Args:
        rows: ids of each study's prompt.
        pad_id: id of the padding.
        labels: for training; without them nothing is learned.
        attend_padding: let the model attend to the padding, as the reference does when it
            generates for several studies at once.
    """
    given = labels if labels is not None else [[IGNORED] * len(row) for row in rows]
    mask = [[1] * len(row) for row in rows]
    return PromptBatch(
        ids=_left(rows, pad_id),
        mask=_left(mask, 1 if attend_padding else 0),
        labels=_left(given, IGNORED),
    )


def splice(
    batch: PromptBatch,
    visual: Sequence[Tensor],
    embed: Callable[[Tensor], Tensor],
    image_id: int,
) -> SplicedBatch:
    """Replace each image token by the Q tokens of its series.

    Visual tokens are attended to and not learned. Rows that end up shorter are filled on the left
    with zeros that are not attended to.

    Args:
        batch: of `collate`.
        visual: [S, Q, D] of each study; S says how many series it has, empty ones included.
        embed: ids -> embeddings of the language model.
        image_id: id of the image token.

    Raises:
        PromptError: (a ValueError) images in a prompt and series of its study differ in number.
    """
    if len(visual) != len(batch.ids):
        raise PromptError(f"{len(batch.ids)} prompts came with the images of {len(visual)} studies")
    columns = (batch.ids, batch.mask, batch.labels)
    rows = [
        _splice_row(row, tokens, embed, image_id)
        for row, tokens in zip(zip(*columns, strict=True), visual, strict=True)
    ]
    longest = max(len(row.ids) for row in rows)
    filled = [_fill(row, longest - len(row.ids)) for row in rows]
    return SplicedBatch(
        embeds=torch.stack([row.embeds for row in filled]),
        ids=torch.stack([row.ids for row in filled]),
        mask=torch.stack([row.mask for row in filled]),
        labels=torch.stack([row.labels for row in filled]),
    )


def _splice_row(
    row: tuple[Tensor, ...], visual: Tensor, embed: Callable[[Tensor], Tensor], image_id: int
) -> SplicedBatch:
    ids, mask, labels = row
    images = ids == image_id
    if int(images.sum()) != len(visual):
        raise PromptError(
            f"the prompt has {int(images.sum())} images for {len(visual)} series; it was cut, or "
            "written for another study"
        )
    repeats = torch.where(images, visual.shape[1], 1)
    wide = torch.repeat_interleave(images, repeats)
    text = embed(ids)
    embeds = torch.repeat_interleave(text, repeats, dim=0)
    if len(visual):
        places = wide.nonzero().squeeze(1)
        embeds = embeds.index_copy(0, places, visual.flatten(0, 1).to(text.dtype))
    return SplicedBatch(
        embeds=embeds,
        ids=torch.repeat_interleave(ids, repeats),
        mask=torch.repeat_interleave(mask, repeats).masked_fill(wide, 1),
        labels=torch.repeat_interleave(labels, repeats).masked_fill(wide, IGNORED),
    )


def _fill(row: SplicedBatch, count: int) -> SplicedBatch:
    """The row with `count` empty places before it; their ids mean nothing, 0 stands there."""
    return SplicedBatch(
        embeds=torch.nn.functional.pad(row.embeds, (0, 0, count, 0)),
        ids=torch.nn.functional.pad(row.ids, (count, 0)),
        mask=torch.nn.functional.pad(row.mask, (count, 0)),
        labels=torch.nn.functional.pad(row.labels, (count, 0), value=IGNORED),
    )


def _left(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[value] * (longest - len(row)) + list(row) for row in rows])
