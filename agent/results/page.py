"""Draw the summary page: one screen that reads without a manual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from agent.results.canvas import SCALE, TEXT, Canvas, Color, shorten
from agent.results.text import evidence, plain
from inference.findings import Acuity, Finding, Status

WIDTH, HEIGHT = 1280, 960
MARGIN = 36
LEFT = 700
"""Right edge of the table; the picture stands to its right."""
MAX_ROWS = 12

BACKGROUND = (16, 18, 22)
PANEL = (27, 30, 36)
LINE = (58, 63, 73)
QUIET = (154, 162, 176)
WARNING = (146, 22, 28)
ALERT = (255, 107, 90)
ACUITY_COLORS = {Acuity.URGENT: ALERT, Acuity.ROUTINE: (240, 180, 80), Acuity.NORMAL: TEXT}
LEVEL_COLORS = {
    "STAT": (200, 38, 38),
    "HIGH": (208, 98, 20),
    "MEDIUM": (36, 104, 176),
    "LOW": (78, 86, 100),
}
HEADLINES = {
    Status.FAILED: "Analysis failed",
    Status.NOT_ATTEMPTED: "Not analyzed",
    Status.PARTIAL: "Analyzed in part",
}


@dataclass(frozen=True)
class Content:
    """What the page says. Attributes named like those of `Findings` mean the same.

    Attributes:
        picture: uint8 [R, C, 3], any size; None when there is no located finding.
        sides: patient directions at the picture's left and top edge, e.g. ``("R", "A")``.
        notice: what the model pack says about its use.
        details: pairs of label and value for the foot of the page.
    """

    level: str
    ordered: str
    reason: str
    status: Status
    status_reason: str
    findings: tuple[Finding, ...]
    picture: npt.NDArray[np.uint8] | None
    sides: tuple[str, str]
    caption: str
    notice: str
    details: tuple[tuple[str, str], ...]


def render(content: Content) -> npt.NDArray[np.uint8]:
    """The page as uint8 [HEIGHT, WIDTH, 3]."""
    canvas = Canvas(WIDTH, HEIGHT, BACKGROUND)
    _banner(canvas)
    _priority(canvas, content)
    _findings(canvas, content)
    _picture(canvas, content)
    _details(canvas, content)
    return canvas.pixels()


def table_rows(findings: tuple[Finding, ...]) -> tuple[list[Finding], int]:
    """The rows to show, present first and most probable first, and how many are left out.

    Findings above threshold are never left out in favor of others.
    """
    ordered = sorted(findings, key=lambda f: (not f.present, -f.probability, f.label))
    shown = MAX_ROWS if len(ordered) <= MAX_ROWS else MAX_ROWS - 1
    return ordered[:shown], max(0, len(ordered) - shown)


def _banner(canvas: Canvas) -> None:
    canvas.box((0, 0, WIDTH, 92), WARNING)
    canvas.text(MARGIN, 45, "RESEARCH USE ONLY", 34, bold=True)
    canvas.text(
        MARGIN, 76, "AI generated, not reviewed by a physician. Not for diagnostic use.", 21
    )
    canvas.text(WIDTH - MARGIN, 59, "AI triage summary", 26, anchor="rs")


def _priority(canvas: Canvas, content: Content) -> None:
    color = LEVEL_COLORS.get(content.level, LEVEL_COLORS["LOW"])
    canvas.box((MARGIN, 116, WIDTH - MARGIN, 208), PANEL, 10)
    canvas.box((MARGIN, 116, MARGIN + 190, 208), color, 10)
    canvas.text(MARGIN + 95, 175, plain(content.level, 8), 38, bold=True, anchor="ms")
    x = MARGIN + 214
    title = "Suggested reading priority"
    if content.ordered:
        title += f"   (ordered: {plain(content.ordered, 16)})"
    canvas.text(x, 146, title, 18, QUIET)
    canvas.paragraph(
        (x, 170), _sentence(content.reason), 20, width=WIDTH - MARGIN - 20 - x, lines=2
    )


def _findings(canvas: Canvas, content: Content) -> None:
    y = 252.0
    if content.status in HEADLINES:
        canvas.text(MARGIN, y, HEADLINES[content.status], 28, ALERT, bold=True)
        text = _sentence(content.status_reason) or "No reason was recorded."
        width = LEFT - MARGIN - 20
        y = canvas.paragraph((MARGIN, y + 36), text, 20, width=width, lines=4) + 20
    rows, left_out = table_rows(content.findings)
    if not rows:
        text = "No statement about any finding can be made. Please read the study as usual."
        canvas.paragraph((MARGIN, y + 6), text, 21, width=LEFT - MARGIN - 20, lines=3)
        return
    _table_head(canvas, y)
    y += 16
    height = min(39.0, (724 - y) / (len(rows) + bool(left_out)))
    for finding in rows:
        _row(canvas, y, height, finding, content.status)
        y += height
    if left_out:
        text = f"and {left_out} less probable ones, see the structured report"
        canvas.text(MARGIN, y + height * 0.65, text, 18, QUIET)
        y += height
    canvas.text(MARGIN + 400, y + 18, "Tick: decision threshold", 15, QUIET)


def _table_head(canvas: Canvas, y: float) -> None:
    canvas.text(MARGIN, y, "Finding", 18, QUIET)
    canvas.text(MARGIN + 400, y, "Probability", 18, QUIET)
    canvas.text(LEFT - 8, y, "Result", 18, QUIET, anchor="rs")
    canvas.box((MARGIN, y + 10, LEFT - 8, y + 11), LINE)


def _row(canvas: Canvas, y: float, height: float, finding: Finding, status: Status) -> None:
    size = 21 if height >= 34 else 18
    base = y + height * 0.5 + size * 0.36
    color = TEXT if finding.present else QUIET
    accent = ACUITY_COLORS[finding.acuity] if finding.present else QUIET
    name = shorten(plain(finding.display), size, 380)
    canvas.text(MARGIN, base, name, size, color, bold=finding.present)
    _bar(canvas, (MARGIN + 400, y + height / 2), finding, accent)
    percent = f"{finding.probability:.0%}"
    canvas.text(MARGIN + 546, base, percent, size, color, anchor="rs")
    absent = "absent" if status is Status.SUCCEEDED else "unclear"
    word = "PRESENT" if finding.present else absent
    canvas.text(
        LEFT - 8,
        base,
        word,
        size,
        accent,
        bold=finding.present,
        anchor="rs",
    )


def _bar(canvas: Canvas, xy: tuple[float, float], finding: Finding, color: Color) -> None:
    """Probability as a bar, the threshold as a tick on it."""
    (x, y), width = xy, 88.0
    canvas.box((x, y - 5, x + width, y + 5), LINE, 5)
    filled = max(8.0, width * min(max(finding.probability, 0.0), 1.0))
    canvas.box((x, y - 5, x + filled, y + 5), color, 5)
    tick = x + width * min(max(finding.threshold, 0.0), 1.0)
    canvas.box((tick - 1, y - 9, tick + 1, y + 9), TEXT)


def _picture(canvas: Canvas, content: Content) -> None:
    side, x, y = WIDTH - MARGIN - LEFT - 24, float(LEFT + 24), 232.0
    canvas.box((x, y, x + side, y + 510), PANEL, 10)
    if content.picture is None:
        canvas.text(x + side / 2, y + 250, _why_no_picture(content), 22, QUIET, anchor="ms")
        return
    space = (round((side - 16) * SCALE), round(444 * SCALE))
    image = Image.fromarray(content.picture)
    scale = min(space[0] / image.width, space[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    left = x + 8 + (space[0] - size[0]) / SCALE / 2
    top = y + 8 + (space[1] - size[1]) / SCALE / 2
    canvas.paste(image, left, top)
    canvas.text(left + 8, top + size[1] / SCALE / 2 + 8, content.sides[0], 22, bold=True)
    canvas.text(left + size[0] / SCALE / 2, top + 26, content.sides[1], 22, bold=True, anchor="ms")
    canvas.text(x + 14, y + 476, shorten(content.caption, 18, side - 28), 18)
    kinds = {evidence(finding) for finding in content.findings if finding.grounding}
    what = kinds.pop() if len(kinds) == 1 else "attention"
    legend = f"Warm colors: {what} of the model. Line: threshold of the mask."
    canvas.text(x + 14, y + 499, legend, 15, QUIET)


def _why_no_picture(content: Content) -> str:
    if not content.findings:
        return "No image was analyzed"
    if any(finding.present for finding in content.findings):
        return "No finding could be located"
    return "No finding above its threshold"


def _details(canvas: Canvas, content: Content) -> None:
    top = 766.0
    canvas.box((MARGIN, top, WIDTH - MARGIN, top + 1), LINE)
    rows = -(-len(content.details) // 2)
    for index, (label, value) in enumerate(content.details):
        column, row = divmod(index, rows)
        x, y = MARGIN + column * 610, top + 38 + row * 31
        canvas.text(x, y, label, 18, QUIET)
        canvas.text(x + 100, y, shorten(plain(value), 18, 480), 18)
    canvas.box((0, HEIGHT - 78, WIDTH, HEIGHT), PANEL)
    notice = shorten(plain(content.notice), 17, WIDTH - 2 * MARGIN)
    canvas.text(MARGIN, HEIGHT - 46, notice, 17, bold=True)
    note = "The absence of a flag does not exclude disease. Colors show where the model looked, "
    canvas.text(MARGIN, HEIGHT - 19, note + "not the outline of a lesion.", 17)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
