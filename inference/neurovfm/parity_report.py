"""Writes docs/parity.md: measured differences from the reference, and the deliberate ones."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from inference.neurovfm.parity import Row

HEAD = """# Parity with the reference

<!-- Written by `worklist-agent packs parity`. Do not edit: run the command. -->

The golden sets were made with the reference code of NeuroVFM; `make test` holds every row below
against the tolerance that the set itself states. Differences are the largest absolute ones, in
float32 on the CPU; for bfloat16 autocast it is the norm of the difference over the embeddings'
norm. 0 means equal in every bit. "Agent's own path" is DICOM through the spool's volumes and the
safe rules, without a file between.
"""


@dataclass(frozen=True)
class Difference:
    """One place where this implementation parts from the reference on purpose."""

    subject: str
    reference: str
    ours: str
    reason: str


ALWAYS = (
    Difference(
        "Normalisation",
        "writes into the caller's batch: a second `embed` normalises twice",
        "leaves the batch as it was",
        "the same call must give the same answer",
    ),
    Difference(
        "Loading weights",
        "`strict=False`: keys that do not fit are skipped in silence",
        "every missing, unexpected or mis-shaped key is an error that names it; no pickled code",
        "a half-loaded model gives numbers that look like findings",
    ),
    Difference(
        "`use_amp=False`",
        "fails: float32 activations meet bfloat16 weights",
        "float32 throughout, attention weights rounded to bfloat16 as they are meant",
        "a CPU needs float32; the golden set rounds in the same way",
    ),
    Difference(
        "`aggregate_then_classify` heads",
        "cannot be loaded by the official pipeline",
        "load and pool; `predict` says that such a head has no classifier",
        "the layout is published",
    ),
    Difference(
        "Volumes that crop to nothing",
        "fewer than 4 slices or one short side fail the whole study",
        "the volume is skipped with its reason, the rest of the study is read",
        "one bad series must not cost a study",
    ),
    Difference(
        "Directory of loose DICOM slices",
        "every slice is a volume of its own, which fails",
        "slices are gathered into their series; multi-frame files stay volumes",
        "it is what such a directory means",
    ),
    Difference(
        "Label names",
        'chosen by "mri" or "ct" anywhere in the path ("/project/" holds "ct")',
        "explicit, from the configuration or by the number of outputs (82 CT, 74 MRI)",
        "a folder's name must not decide what a finding is called",
    ),
    Difference(
        "Token coordinates outside the position grid",
        "read another row of the table",
        "refused",
        "a wrong position is a wrong answer without a trace",
    ),
    Difference(
        "Background kept, masks given",
        "statistics are applied by the bounds of the filtered tokens to unfiltered ones",
        "tokens are filtered first, then normalised",
        "each token gets the statistics of its own series",
    ),
    Difference(
        "Modality names",
        'only "ct" and "mri" can be embedded',
        "any case, and DICOM's MR",
        "a PACS writes CT and MR",
    ),
)

SAFE = (
    Difference(
        "Slice axis",
        "the smallest side length that occurs once; none of it when all sides are equal",
        "the direction of acquisition; top to bottom for isotropic volumes, as the reference",
        "the reference cuts 52 x 44 x 64 voxels along the wrong axis and skips equal sides",
    ),
    Difference(
        "Samples beyond the last slice",
        "0, which is soft tissue in a CT (slices thicker than 8 mm)",
        "air (-1000 HU) for CT, the darkest voxel for MR",
        "an invented slab of tissue is foreground to the model",
    ),
    Difference(
        "Constant volumes",
        "become a series without tokens",
        "skipped with that reason",
        "the reader is told what was not read",
    ),
    Difference(
        "Volumes without a foreground token",
        "become a series without tokens",
        "skipped with that reason",
        "the reader is told what was not read",
    ),
    Difference(
        "NaN and infinite voxels",
        "spread through percentiles and interpolation",
        "refused",
        "the findings would mean nothing",
    ),
    Difference(
        "Side lengths",
        "`int(size * spacing / target)` as floats fall",
        "the same with 1e-6 voxel of slack",
        "spacings worked out from positions miss whole numbers by rounding",
    ),
)


def write_report(rows: Sequence[Row], path: Path) -> None:
    """Write the whole document."""
    path.write_text(compose(rows), encoding="utf-8")


def compose(rows: Sequence[Row]) -> str:
    """The document as Markdown."""
    outside = [row for row in rows if not row.within]
    verdict = f"{len(rows)} comparisons, {len(outside)} outside their tolerance."
    made = (
        f"Measured with torch {torch.__version__}, SimpleITK {version('SimpleITK')}, "
        f"numpy {np.__version__} on {platform.machine()}, CPU."
    )
    parts = [
        HEAD,
        f"**{verdict}** {made}\n",
        "## Summary\n",
        *_table(
            ("case", "quantity", "subjects", "values", "largest difference", "tolerance", "within"),
            _summary(rows),
        ),
        "\n## Where we differ on purpose, always\n",
        *_differences(ALWAYS),
        "\n## Where the agent's own path differs (`safe` rules)\n",
        'The official interface keeps the reference\'s rules unless `rules="safe"` is asked for.\n',
        *_differences(SAFE),
        "\n## Every comparison\n",
        *_table(
            ("case", "subject", "quantity", "values", "largest difference", "within"),
            (
                (
                    r.case,
                    r.subject,
                    r.quantity,
                    str(r.values),
                    _number(r.difference),
                    _yes(r.within),
                )
                for r in rows
            ),
        ),
    ]
    return "\n".join(parts) + "\n"


def _summary(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """One line for each quantity of a case."""

    def key(row: Row) -> tuple[str, str, str]:
        return row.case, row.quantity, row.tolerance

    for (case, quantity, tolerance), group in groupby(sorted(rows, key=key), key):
        found = list(group)
        yield (
            case,
            quantity,
            str(len(found)),
            str(sum(row.values for row in found)),
            _number(max(row.difference for row in found)),
            tolerance,
            _yes(all(row.within for row in found)),
        )


def _differences(listed: Sequence[Difference]) -> list[str]:
    return _table(
        ("what", "reference", "here", "why"),
        ((d.subject, d.reference, d.ours, d.reason) for d in listed),
    )


def _table(head: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> list[str]:
    rule = "|" + "---|" * len(head)
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)]


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _yes(within: bool) -> str:
    return "yes" if within else "**no**"
