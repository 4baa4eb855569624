"""Seconds that explaining one series by LIME takes, at the published sizes of the study model.

    python bench/prima_lime.py [--samples 32] [--slices 24] [--series 2] [--depth 15] [--threads 2]

Weights are random, which changes no speed; heads are small, for 52 of published size weigh 9.4 GB.
A GPU is taken if there is one. The time for 1 000 samples is the measured one, scaled.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import prima as bench  # its parts are this bench's, too

from inference.explain.options import ExplainOptions
from inference.manifest import HeadKind
from inference.prima.explaining import Wanted
from inference.prima.lime import Subject, explain
from inference.prima.model import EncodedSeries, HeadReader, PrimaModel


def main() -> None:
    """Measure once and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--slices", type=int, default=24)
    parser.add_argument("--series", type=int, default=2)
    parser.add_argument("--depth", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    visual = bench._visual(arguments.depth).to(device).requires_grad_(False)  # noqa: SLF001
    networks, stacked = bench._networks(bench.HEADS, visual.size.embedding, (40, 10))  # noqa: SLF001
    reader = HeadReader(stacked.to(device), tuple(index for _, index in networks))
    model = PrimaModel(visual, {HeadKind.DIAGNOSES: reader})
    given = [_encoded(number, arguments.slices) for number in range(arguments.series)]
    subject = Subject(given, model.encode_all(given), "MR BRAIN")
    options = ExplainOptions(samples=arguments.samples, series=1)
    started = time.monotonic()
    (found,) = explain(model, subject, Wanted(diagnoses=range(5)).read, options, lambda n: n)
    seconds = time.monotonic() - started
    print(
        f"{device.type}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}: "
        f"{found.samples} samples of {len(found.importance)} tokens in {seconds:.1f} s; "
        f"1000 would take {1000 * seconds / found.samples:.0f} s"
    )


def _encoded(number: int, slices: int) -> EncodedSeries:
    series = bench._series(number, slices)  # noqa: SLF001
    sides = [2 if axis == series.axis else 8 for axis in range(3)]
    latents = torch.randn(len(series.kept), 2, *sides)
    return EncodedSeries(latents, torch.from_numpy(series.coords), series.axis, series.name)


if __name__ == "__main__":
    main()
