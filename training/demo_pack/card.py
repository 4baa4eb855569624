"""The model card of the demo pack: card.json for programs, card.md for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.demo_pack.export import NAME, NOTICE, TITLE, VERSION
from training.demo_pack.metrics import LabelReport
from training.demo_pack.selection import MIN_AUROC, Validated

CARD_FILES = ("card.json", "card.md")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What went into the pack; the command that repeats it."""

    command: str
    seed: int
    steps: int
    parameters: int
    studies: Mapping[str, Mapping[str, int]]
    """Number of studies by modality and split."""


def write_card(
    directory: Path,
    recipe: Recipe,
    reports: Mapping[str, Sequence[LabelReport]],
    validated: Mapping[str, Sequence[Validated]],
) -> dict[str, Any]:
    """Write both files and return what card.json says."""
    card = _card(recipe, reports) | {"left_out": _left_out(reports, validated)}
    text = json.dumps(card, indent=2) + "\n"
    (directory / CARD_FILES[0]).write_text(text, encoding="utf-8")
    (directory / CARD_FILES[1]).write_text(_markdown(card), encoding="utf-8")
    return card


def _card(recipe: Recipe, reports: Mapping[str, Sequence[LabelReport]]) -> dict[str, Any]:
    rows = [row for modality in reports.values() for row in modality]
    return {
        "pack": NAME,
        "version": VERSION,
        "title": TITLE,
        "notice": NOTICE,
        "demonstration": True,
        "clinical_use": False,
        "recipe": dataclasses.asdict(recipe),
        "summary": {
            "mean_auroc": _mean([row.auroc for row in rows]),
            "mean_pointing": _mean([row.pointing for row in rows]),
            "mean_pointing_strict": _mean([row.pointing_strict for row in rows]),
            "mean_dice": _mean([row.dice for row in rows]),
            "by_modality": {
                modality: {
                    "mean_auroc": _mean([row.auroc for row in some]),
                    "mean_pointing": _mean([row.pointing for row in some]),
                }
                for modality, some in reports.items()
            },
        },
        "labels": {
            modality: [_rounded(dataclasses.asdict(row)) for row in some]
            for modality, some in reports.items()
        },
    }


def _left_out(
    reports: Mapping[str, Sequence[LabelReport]], validated: Mapping[str, Sequence[Validated]]
) -> dict[str, dict[str, float | None]]:
    """Validation AUROC of the labels that do not ship, by modality."""
    shipped = {modality: {row.label for row in rows} for modality, rows in reports.items()}
    return {
        modality: {
            one.label: None if one.auroc is None else round(one.auroc, 3)
            for one in some
            if one.label not in shipped[modality]
        }
        for modality, some in validated.items()
    }


def _markdown(card: Mapping[str, Any]) -> str:
    summary, recipe = card["summary"], card["recipe"]
    lines = [
        f"# Model card: {card['pack']} {card['version']}",
        "",
        f"> **{card['notice']}**",
        "",
        "This pack exists so that the whole path of the agent can be shown without patient data",
        "and without downloads. Its numbers say that the path works; they say nothing about",
        "patients. Real heads have movement, implants, contrast medium, previous surgery and",
        "disease that these images do not have.",
        "",
        "- **Model:** a NeuroVFM-shaped 3D vision transformer and one attentive head a modality,",
        f"  {recipe['parameters']:,} parameters, trained from scratch under full supervision.",
        "- **Data:** synthetic CT (HU) and MR (T1, T2, FLAIR, DWI) of heads made from the MNI152",
        "  templates with random pose, size, elastic warp and sulci; lesions with known masks.",
        f"- **Studies:** {_counts(recipe['studies'])}. No two studies share a seed or an anatomy.",
        f"- **Rebuild:** `{recipe['command']}`",
        "",
        "## Held-out synthetic studies",
        "",
        "Every study was written as DICOM files and analysed by the agent's own engine.",
        f"Mean AUROC **{_number(summary['mean_auroc'], 3)}**,",
        f"mean pointing game **{_number(summary['mean_pointing'], 3)}**",
        f"(strict {_number(summary['mean_pointing_strict'], 3)}),",
        f"mean Dice {_number(summary['mean_dice'], 3)}; means over the labels that ship.",
        "",
    ]
    for modality, rows in card["labels"].items():
        lines += [f"### {modality}", "", *_table(rows), ""]
    return "\n".join([*lines, *_omissions(card["left_out"]), *_FOOTNOTES]) + "\n"


def _omissions(left_out: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """What the pack cannot tell, with its number: silence would read as 'absent'."""
    lines = [
        "### Not in the pack",
        "",
        f"Labels with an AUROC below {MIN_AUROC} on the validation studies do not ship: this small",
        "model cannot tell them, and a finding that is not reported has **not** been looked for.",
        "",
    ]
    for modality, labels in left_out.items():
        named = [f"{label} ({_number(value)})" for label, value in labels.items()]
        lines.append(f"- {modality}: {', '.join(named) or 'none'}")
    return [*lines, ""]


_FOOTNOTES = (
    "AUROC with a 95 % bootstrap interval over studies. *Threshold*: the best sensitivity + 3 x",
    "specificity on the validation studies, which also gave the saliency cut for Dice. *Pointing*:",
    "the most salient voxel lies in the true mask or within half a token (8 mm) of it, because a",
    "peak is always a token's center; *strict* allows nothing. A true finding without grounding",
    "counts as a miss. Diffuse labels (cerebral atrophy) have no mask and no pointing or Dice.",
    "Tokens are 16 mm wide, so Dice of thin collections cannot be high.",
)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = (
        "| label | positives / all | AUROC (95 % CI) | threshold | sensitivity | specificity "
        "| pointing (strict) | Dice |"
    )
    return [head, "|---|--:|---|--:|--:|--:|---|--:|", *(_row(row) for row in rows)]


def _row(row: Mapping[str, Any]) -> str:
    auroc, pointing = "-", "-"
    if row["auroc"] is not None:
        auroc = f"{row['auroc']:.3f} ({row['auroc_low']:.3f}-{row['auroc_high']:.3f})"
    if row["pointing"] is not None:
        pointing = f"{row['pointing']:.2f} ({row['pointing_strict']:.2f}) of {row['localized']}"
    cells = (
        row["label"],
        f"{row['positives']} / {row['positives'] + row['negatives']}",
        auroc,
        f"{row['threshold']:.2f}",
        _number(row["sensitivity"]),
        _number(row["specificity"]),
        pointing,
        _number(row["dice"]),
    )
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _counts(studies: Mapping[str, Mapping[str, int]]) -> str:
    return "; ".join(
        f"{modality} " + ", ".join(f"{count} {split}" for split, count in splits.items())
        for modality, splits in studies.items()
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(float(np.mean(known)), 4) if known else None


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
