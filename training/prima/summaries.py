"""Shortens reports through a language model inside the house, for the text side of the training.

The wording of the question is ours: the published one is not released with the code.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from inference.report.errors import DraftError
from inference.report.house import LeavesTheHouse
from inference.report.scrub import scrub
from inference.report.triage import Reasoner
from training.data.table import StudyRow

log = structlog.get_logger(__name__)

Progress = Callable[[int, int, float], None]
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"findings": {"type": "array", "items": {"type": "string"}}},
    "required": ["findings"],
    "additionalProperties": False,
}
INSTRUCTIONS = (
    "You shorten radiology reports of brain MRI. List every finding and impression of the report "
    "as short sentences. Leave out technique, comparisons, names and dates. Add nothing. Answer "
    'with one JSON object with the key "findings".'
)


def summarise(
    rows: Sequence[StudyRow], client: Reasoner, kept: Path, progress: Progress | None = None
) -> list[StudyRow]:
    """The rows with their `summary` filled; answers lie in `kept`, so that a run can go on.

    A report that the model does not answer for keeps an empty summary: training then reads the
    report itself.

    Raises:
        LeavesTheHouse: the server is outside.
        DraftError: the first report got no answer at all, so the rest would not either.
    """
    known = _read(kept)
    missing = [row for row in rows if row.report.strip() and row.study not in known]
    started = time.monotonic()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a", encoding="utf-8") as stream:
        for done, row in enumerate(missing, start=1):
            try:
                known[row.study] = shorten(row.report, client)
            except LeavesTheHouse:
                raise
            except DraftError as error:
                if done == 1:
                    raise
                log.warning("report_not_summarised", why=str(error))
                continue
            stream.write(json.dumps({"study": row.study, "summary": known[row.study]}) + "\n")
            stream.flush()
            if progress is not None:
                left = (time.monotonic() - started) / done * (len(missing) - done)
                progress(done, len(missing), left)
    return [dataclasses.replace(row, summary=known.get(row.study, row.summary)) for row in rows]


def shorten(report: str, client: Reasoner) -> str:
    """One report as numbered findings, identifiers removed before it is sent.

    Raises:
        DraftError: no answer, or none in form.
    """
    lines = [scrub(line) for line in report.splitlines() if line.strip()]
    messages = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": "\n".join(lines)},
    ]
    text = client.answer(messages, FORM)
    try:
        found = json.loads(text)["findings"]
        sentences = [" ".join(str(one).split()) for one in found if str(one).strip()]
    except (ValueError, TypeError, KeyError) as error:
        raise DraftError("the summary is no JSON object with findings") from error
    return "\n".join(f"{number}. {one}" for number, one in enumerate(sentences, start=1))


def _read(file: Path) -> dict[str, str]:
    """Answers of a run before; a torn last line is left out."""
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8") as stream:
        entries = [json.loads(line) for line in stream if line.endswith("\n")]
    return {entry["study"]: entry["summary"] for entry in entries}
