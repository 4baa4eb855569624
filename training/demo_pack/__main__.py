"""Command line of the recipe: `python -m training.demo_pack --out DIR --seed N [--quick]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_MEANS = ("mean_auroc", "mean_pointing", "mean_pointing_strict", "mean_dice")


def main(arguments: list[str] | None = None) -> int:
    """Build the pack and print the summary of its card."""
    options = _parser().parse_args(arguments)
    # Late, so that --help does not load torch.
    from training.demo_pack import recipe

    plan = recipe.QUICK if options.quick else recipe.FULL
    card = recipe.build(
        options.out,
        options.seed,
        plan,
        options.work_dir,
        options.workers,
        f"python -m training.demo_pack --out DIR --seed {options.seed}"
        + (" --quick" if options.quick else ""),
    )
    summary = card["summary"]
    means = ", ".join(f"{name} {summary[name]}" for name in _MEANS)
    sys.stdout.write(f"{options.out}: {means}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.demo_pack",
        description="Make the demonstration pack from synthetic studies. Not for clinical use.",
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the pack")
    parser.add_argument(
        "--seed", type=int, default=20261123, help="decides all studies and weights"
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path("build/demo_pack"),
        help="tokens and answers are kept here between runs (about 2 MB a study)",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes, and training threads")
    parser.add_argument("--quick", action="store_true", help="a run of seconds that learns nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
