"""Writes docs/parity.md: measured differences from the references, and the deliberate ones."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from inference.parity.rows import Chapter, Row

HEAD = """# Parity with the reference

<!-- Written by `worklist-agent packs parity`. Do not edit: run the command. -->

The golden sets were made with the reference code of NeuroVFM (n1 to n4) and Prima (p1 to p4);
`make test` holds every row below against the tolerance that the set itself states. Differences
are the largest absolute ones, in float32 on the CPU; for bfloat16 autocast it is the norm of the
difference over the embeddings' norm. 0 means equal in every bit. "Agent's own path" is DICOM
through the spool's volumes and the safe rules, without a file between.
"""


def write_report(rows: Sequence[Row], chapters: Sequence[Chapter], path: Path) -> None:
    """Write the whole document."""
    path.write_text(compose(rows, chapters), encoding="utf-8")


def compose(rows: Sequence[Row], chapters: Sequence[Chapter]) -> str:
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
        *(line for chapter in chapters for line in _chapter(chapter)),
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


def _chapter(chapter: Chapter) -> list[str]:
    lines = ((d.subject, d.reference, d.ours, d.reason) for d in chapter.differences)
    note = [f"{chapter.note}\n"] if chapter.note else []
    table = _table(("what", "reference", "here", "why"), lines)
    return [f"\n## {chapter.title}\n", *note, *table]


def _table(head: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> list[str]:
    rule = "|" + "---|" * len(head)
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)]


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _yes(within: bool) -> str:
    return "yes" if within else "**no**"
