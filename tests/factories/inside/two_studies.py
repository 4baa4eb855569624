"""Runs under torchrun: Prima's main training and a joined codebook on each of two processes."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from factories import prima_training as small
from factories.prima import TOKENIZER

from inference.prima.quantizer import Codebook
from inference.prima.vqvae_config import read_tokenizer_config
from training import runtime
from training.data.table import StudyRow
from training.prima.clip.recipe import ClipRun, train
from training.prima.sampling import NO_DROPOUT
from training.prima.vqvae.recipe import join_codebooks

STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
RUN = ClipRun(
    size=small.SIZE,
    text=replace(small.TEXT, settings={**small.TEXT.settings, **STILL}),
    batch=8,
    joined=1,
    steps=3,
    rate=3e-3,
    warm_up=1,
    dropout=NO_DROPOUT,
    device="cpu",
)


def rows(folder: Path) -> list[StudyRow]:
    """Eight studies with a report each."""
    return [StudyRow(f"s{n}", folder, f"p{n}", "MR", report=f"case {n}") for n in range(8)]


def codebook() -> tuple[Codebook, torch.Tensor]:
    """A fresh one and four latents to learn."""
    torch.manual_seed(5)
    book = Codebook(read_tokenizer_config(TOKENIZER)).train()
    return book, torch.randn(4, 2, 2, 8, 8)


def compare(out: Path) -> None:
    """Write the losses of three steps, which all processes agree on."""
    losses = train(out / "latents", rows(out), replace(RUN, batch=4), out / "run")
    torch.save(losses, out / f"{os.environ['RANK']}.pt")


def join(out: Path) -> None:
    """Write the codebook after each process has shown it two of the latents."""
    with runtime.take_place("cpu") as place:
        book, latents = codebook()
        before = book.ema_cluster_size.clone(), book.ema_w.clone()
        book(latents[place.rank * 2 : place.rank * 2 + 2])
        join_codebooks(book, *before, place)
        torch.save(book.state_dict(), out / f"{place.rank}.pt")


if __name__ == "__main__":
    {"compare": compare, "join": join}[sys.argv[1]](Path(sys.argv[2]))
