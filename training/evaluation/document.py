"""The evaluation as one HTML page with its pictures inside, one JSON, and the pack's model card."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from pathlib import Path

from inference import packs
from training.evaluation.metrics import Measured
from training.evaluation.pictures import draw
from training.evaluation.summary import Evaluation

CARD_FILES = ("card.json", "card.md")
CAPTIONS = {
    "auroc": "Ranking of each label.",
    "reliability": "Probabilities against what was seen; the dotted line is honest.",
    "data": "More positive studies, better ranking.",
    "groups": "Largest difference in sensitivity or specificity between groups, mean over labels.",
}
LEVELS = "Rows: true priority level. Columns: level of the model's own priority head."
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1b1f24}table{border-collapse:collapse;font-size:13px;width:100%}td,th{padding:.25rem "
    ".5rem;border-bottom:1px solid #d0d7de;text-align:right}td:first-child,th:first-child"
    "{text-align:left}figure{margin:1.5rem 0}img{max-width:100%}"
    ".notice{border:2px solid #b35900;padding:.5rem 1rem}"
)


def write_report(evaluation: Evaluation, out: Path, notice: str) -> tuple[Path, Path]:
    """Write ``evaluation.json`` and ``evaluation.html`` and return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    numbers, page = out / "evaluation.json", out / "evaluation.html"
    numbers.write_text(json.dumps(evaluation.to_dict(), indent=1) + "\n", encoding="utf-8")
    page.write_text(render_html(evaluation, notice), encoding="utf-8")
    return numbers, page


def write_card(evaluation: Evaluation, pack: Path) -> None:
    """Put the numbers into the pack as its model card; the manifest then names the card's files.

    Raises:
        PackError: no pack there, or a file of it is missing.
    """
    manifest = packs.load_manifest(pack)
    (pack / "card.json").write_text(
        json.dumps(evaluation.to_dict(), indent=1) + "\n", encoding="utf-8"
    )
    (pack / "card.md").write_text(render_markdown(evaluation, manifest.notice), encoding="utf-8")
    others = [f.path for f in manifest.files if f.path not in manifest.model_files]
    packs.write_manifest(pack, replace(manifest), sorted({*others, *CARD_FILES}))


def render_markdown(evaluation: Evaluation, notice: str) -> str:
    """The model card."""
    lines = [
        f"# Model card: {evaluation.pack}",
        "",
        f"**{notice}**",
        "",
        *_summary(evaluation),
        "",
        "| " + " | ".join(_HEADER) + " |",
        "|---" + "|---:" * (len(_HEADER) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in _rows(evaluation)),
        "",
        "## Priority",
        "",
        "Rows: most urgent true label. Columns: most urgent finding of the model.",
        "",
        *_confusion_markdown(evaluation.confusion),
        "",
        *_levels_markdown(evaluation),
        *_gaps(evaluation),
    ]
    return "\n".join(lines) + "\n"


def render_html(evaluation: Evaluation, notice: str) -> str:
    """One page that needs nothing else."""
    pictures = draw(evaluation)
    figures = "".join(
        f'<figure><img alt="{escape(CAPTIONS[name])}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{escape(CAPTIONS[name])}</figcaption></figure>"
        for name, png in pictures.items()
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>Evaluation of {escape(evaluation.pack)}</title><style>{STYLE}</style>"
        f"<h1>Evaluation of {escape(evaluation.pack)}</h1><p class='notice'>{escape(notice)}</p>"
        + "".join(f"<p>{escape(line)}</p>" for line in _summary(evaluation) if line)
        + _table(_HEADER, _rows(evaluation))
        + "<h2>Priority</h2><p>Rows: most urgent true label. Columns: most urgent finding of the "
        "model.</p>"
        + _table(*_confusion(evaluation.confusion))
        + (f"<p>{LEVELS}</p>{_table(*_confusion(evaluation.levels))}" if evaluation.levels else "")
        + "<h2>Groups</h2>"
        + "".join(f"<p>{escape(line)}</p>" for line in _gaps(evaluation) if line)
        + _table(_GROUP_HEADER, _group_rows(evaluation))
        + figures
        + "</html>\n"
    )


_HEADER = (
    "Label",
    "Positive",
    "Negative",
    "AUROC",
    "AUPRC",
    "Threshold",
    "Sensitivity",
    "Specificity",
    "Calibration error",
)
_GROUP_HEADER = (
    "Attribute",
    "Label",
    "Group",
    "Positive",
    "Negative",
    "AUROC",
    "Sensitivity",
    "Specificity",
)


def _summary(evaluation: Evaluation) -> list[str]:
    mean = evaluation.mean_auroc
    ranked = "" if mean is None else f", mean AUROC {mean:.3f} over the labels with both classes"
    lines = [
        f"{evaluation.studies} studies analysed{ranked}.",
        "",
        f"Pack manifest SHA-256 {evaluation.digest}. Intervals: 95 %, bootstrap over studies.",
    ]
    for reason, count in evaluation.refused.items():
        lines += ["", f"{count} studies were not analysed: {reason}"]
    return lines


def _rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    return [
        (
            f"{one.modality} {one.label}",
            str(one.positives),
            str(one.negatives),
            _shown(one.auroc),
            _shown(one.auprc),
            f"{one.threshold:.3f}",
            _shown(one.sensitivity),
            _shown(one.specificity),
            f"{one.calibration_error:.3f}",
        )
        for one in evaluation.labels
    ]


def _group_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    return [
        (
            table.attribute,
            table.label,
            group.group,
            str(group.positives),
            str(group.negatives),
            _plain(group.auroc),
            _plain(group.sensitivity),
            _plain(group.specificity),
        )
        for table in evaluation.groups
        for group in table.groups
    ]


def _gaps(evaluation: Evaluation) -> list[str]:
    gaps = evaluation.odds_gaps()
    if not gaps:
        return ["No attribute has two groups large enough to compare."]
    return [f"Distance from equalised odds by {name}: {gap:.3f}" for name, gap in gaps.items()]


Counts = Mapping[str, Mapping[str, int]]


def _confusion(counts: Counts) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    names = tuple(counts)
    rows = [(name, *(str(counts[name][other]) for other in names)) for name in names]
    return ("", *names), rows


def _levels_markdown(evaluation: Evaluation) -> list[str]:
    return [LEVELS, "", *_confusion_markdown(evaluation.levels), ""] if evaluation.levels else []


def _confusion_markdown(counts: Counts) -> list[str]:
    header, rows = _confusion(counts)
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shown(measured: Measured | None) -> str:
    if measured is None:
        return "-"
    return f"{measured.value:.3f} ({measured.low:.3f}-{measured.high:.3f})"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
