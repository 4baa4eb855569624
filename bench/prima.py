"""Prima inference beside the reference's order of operations, in one run, on the same weights.

    python bench/prima.py [--parts tokenizer study heads] [--series 4] [--slices 40] [--json FILE]

The reference's order is re-created from its description (bench/prima_reference.py). Ours and theirs
take turns in one process, the table shows medians and the largest difference of the results. The
published sizes are the default; --channels and --depth shorten a run. Heads: at their published
size 52 of them weigh 9.4 GB, which memory bandwidth bounds either way; the table shows them small,
where the loop's overhead counts, and a few of them whole.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import prima_reference

from inference.manifest import HeadKind
from inference.prima.analyse import run
from inference.prima.filtering import choose_tokens
from inference.prima.heads import StackedHeads, stack
from inference.prima.hiervit import HierVit
from inference.prima.hiervit_sizes import HierVitSize
from inference.prima.model import HeadReader, PrimaModel
from inference.prima.patches import make_patches
from inference.prima.series import PrimaSeries, PrimaStudy
from inference.prima.texts import TextSize
from inference.prima.transformer import TransformerSize, VitSize
from inference.prima.vqvae import VQVAE, Tokenizer
from inference.prima.vqvae_config import TokenizerConfig

HEADS = 52
QUICK_S = 0.05
"""What takes less is repeated twenty times a round."""


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    measures: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
        "tokenizer": _tokenizer,
        "study": _study,
        "heads": _heads,
    }
    results = [row for part in arguments.parts for row in measures[part](arguments)]
    _print(results)
    if arguments.json:
        made = {"results": results, "machine": platform.machine(), "torch": torch.__version__}
        made |= {"threads": torch.get_num_threads(), "load": os.getloadavg()}
        arguments.json.write_text(json.dumps(made, indent=1), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["tokenizer", "study", "heads"])
    parser.add_argument("--series", type=int, default=4)
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--channels", type=int, default=256, help="of the tokenizer")
    parser.add_argument("--depth", type=int, default=15, help="layers of the series transformer")
    parser.add_argument("--whole-heads", type=int, default=4, help="heads of published size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


# --- parts --------------------------------------------------------------------------------------


def _tokenizer(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    series, model = _series(0, arguments.slices), _vqvae(arguments.channels)
    tokenizer = Tokenizer(copy.deepcopy(model))  # it changes the layout of its weights
    blocks = torch.from_numpy(series.patches.gather())
    doubled = torch.from_numpy(series.patches.upsampled())

    def theirs() -> Tensor:
        with torch.inference_mode():
            return torch.cat([model.encode(part) for part in torch.split(doubled, 400)])

    row = _compare(
        "tokenizer, all tokens", lambda: tokenizer.encode_thin(blocks, 0), theirs, arguments
    )
    return [{**row, "patches_per_s": round(len(blocks) / row["ours_s"], 1)}]


def _study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """From prepared volumes to all scores."""
    given = tuple(_series(n, arguments.slices) for n in range(arguments.series))
    study = PrimaStudy(given, description="MR BRAIN")
    vqvae, visual = _vqvae(arguments.channels), _visual(arguments.depth)
    networks, stacked = _networks(HEADS, visual.size.embedding, (40, 10))
    indices = tuple(index for _, index in networks)
    model = PrimaModel(visual, {HeadKind.DIAGNOSES: HeadReader(stacked, indices)})
    tokenizer = Tokenizer(copy.deepcopy(vqvae))

    def ours() -> Tensor:
        found = model.heads(run(study, tokenizer, model).embedding).diagnoses
        assert found is not None
        return found

    def theirs() -> Tensor:
        latents = [prima_reference.tokenize(vqvae, one) for one in given]
        return prima_reference.answer(networks, prima_reference.embed(visual, given, latents))

    kept, total = study.token_count, sum(len(one.patches) for one in given)
    name = f"study, {len(given)} series, {kept} of {total} tokens"
    return [_compare(name, ours, theirs, arguments)]


def _heads(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for count, width, hidden in (
        (HEADS, 96, (40, 10)),
        (arguments.whole_heads, 10240, (4000, 1000)),
    ):
        networks, stacked = _networks(count, width, hidden)
        embedding, indices = torch.randn(width), [index for _, index in networks]
        rows.append(_compare_heads(networks, stacked, embedding, indices, arguments))
    return rows


def _compare_heads(
    networks: list[tuple[nn.Sequential, int]],
    stacked: StackedHeads,
    embedding: Tensor,
    indices: list[int],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    def ours() -> Tensor:
        with torch.inference_mode():
            return stacked.chosen(embedding[None], indices)[0]

    name = f"heads, {len(networks)} of {len(embedding)} inputs"
    return _compare(name, ours, lambda: prima_reference.answer(networks, embedding), arguments)


# --- inputs -------------------------------------------------------------------------------------


def _series(number: int, slices: int) -> PrimaSeries:
    """A head-like ball of tissue in air, thin along another axis for every series."""
    axis = number % 3
    shape = tuple(slices - 4 * (number % 4) if i == axis else 256 for i in range(3))
    places = np.ogrid[tuple(slice(-1, 1, complex(0, n)) for n in shape)]
    radius = sum(place**2 for place in places)
    noise = np.random.default_rng(number).integers(0, 40, shape)
    volume = np.where(radius < 0.8, 300 + noise, noise // 4).astype(np.int16)
    patches = make_patches(volume, axis)
    values = patches.foreground_percent()
    kept, percent = choose_tokens(values, patches.grid)
    return PrimaSeries(f"SERIES_{number}", patches, values, kept, percent, np.eye(4))


def _vqvae(channels: int) -> VQVAE:
    return VQVAE(
        TokenizerConfig(
            in_channels=1,
            out_channels=1,
            channels=(channels, channels),
            res_channels=(channels, channels),
            res_layers=2,
            down=((2, 4, 1, 1), (2, 2, 1, 0)),
            up=((2, 4, 1, 1, 0), (2, 2, 1, 0, 0)),
            codes=64,
            code_width=2,
        )
    ).eval()


def _visual(depth: int) -> HierVit:
    text = TransformerSize(256, 3, 4, 64, 300)
    size = HierVitSize(
        inner=VitSize(TransformerSize(289, depth, 16, 64, 1024), 20, 1024),
        outer=VitSize(TransformerSize(1024, 4, 8, 64, 1024), 10, 128),
        series_name=TextSize(47, 246, text, 128, 289),
        study_description=TextSize(47, 246, text, 1024),
        discriminator=None,
    )
    return HierVit(size).eval()


def _networks(
    count: int, width: int, hidden: tuple[int, int]
) -> tuple[list[tuple[nn.Sequential, int]], StackedHeads]:
    first, second = hidden
    made = [
        nn.Sequential(
            nn.Linear(width, first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, 4),
        )
        for _ in range(count)
    ]
    layers = [[(part.weight.detach(), part.bias.detach()) for part in n[::2]] for n in made]
    shapes = [[(w.shape[0], w.shape[1]) for w, _ in n] for n in layers]
    stacked = StackedHeads(stack(shapes, lambda row: layers[row]))
    return [(network, number % 4) for number, network in enumerate(made)], stacked


# --- measuring ----------------------------------------------------------------------------------


def _compare(
    name: str,
    ours: Callable[[], Tensor],
    theirs: Callable[[], Tensor],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    seconds: tuple[list[float], list[float]] = ([], [])
    answers: list[Tensor] = []
    for _ in range(arguments.rounds + 1):
        answers = []
        for place, function in enumerate((ours, theirs)):
            quick = bool(seconds[place]) and seconds[place][-1] < QUICK_S
            repeats = 20 if quick else 1
            started = time.perf_counter()
            for _ in range(repeats):
                answer = function()
            seconds[place].append((time.perf_counter() - started) / repeats)
            answers.append(answer)
    ours_s, theirs_s = (statistics.median(found[1:]) for found in seconds)
    return {
        "name": name,
        "ours_s": ours_s,
        "theirs_s": theirs_s,
        "ratio": round(theirs_s / ours_s, 2),
        "difference": float((answers[0] - answers[1]).abs().max()),
    }


def _print(results: list[dict[str, Any]]) -> None:
    print(f"{'':44}{'ours':>12}{'reference':>12}{'ratio':>8}{'difference':>12}")
    for row in results:
        print(
            f"{row['name']:44}{row['ours_s']:11.4f}s{row['theirs_s']:11.4f}s"
            f"{row['ratio']:8.2f}{row['difference']:12.1e}"
        )
        if "patches_per_s" in row:
            print(f"{'':4}{row['patches_per_s']} patches/s")


if __name__ == "__main__":
    main()
