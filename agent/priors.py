"""How a study's scores changed since an earlier study that the same model has read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from db.models import Analysis, Study
from db.queries import priors
from inference.findings import Findings

ARCHIVED = "archived_prior"
"""Key in a row's findings JSON: scores of an earlier study that only the archive held."""
LISTED = 8
"""Changes that are put into words, largest first."""
UNCHANGED = 0.05


@dataclass(frozen=True)
class Change:
    """One label in both studies; scores are logits minus the label's threshold."""

    display: str
    before: float
    now: float

    @property
    def difference(self) -> float:
        """Positive = more of it now."""
        return self.now - self.before

    @property
    def matters(self) -> bool:
        """Present in one of the studies, and not the same."""
        return max(self.before, self.now) >= 0 and abs(self.difference) >= UNCHANGED


@dataclass(frozen=True)
class Comparison:
    """A study beside an earlier one.

    Attributes:
        key: of the earlier study, for a link; empty where the archive alone holds it.
        date: of the earlier study, as DICOM writes it.
        changes: by label.
    """

    key: str
    date: str
    changes: Mapping[str, Change] = field(default_factory=dict)

    @property
    def from_archive(self) -> bool:
        """Whether the earlier study was fetched for the comparison, and is no study of ours."""
        return not self.key

    @property
    def text(self) -> str:
        """One sentence for people, without anything of the patient."""
        day = f"{self.date[:4]}-{self.date[4:6]}-{self.date[6:8]}"
        told = [change for change in self.changes.values() if change.matters]
        told.sort(key=lambda change: -abs(change.difference))
        words = [
            f"{change.display} {change.difference:+.1f} (to {change.now:+.1f})"
            for change in told[:LISTED]
        ]
        what = "; ".join(words) or "no finding changed"
        more = f"; {len(told) - LISTED} more" if len(told) > LISTED else ""
        origin = " (fetched from the archive)" * self.from_archive
        return f"Compared with the study of {day}{origin}, same model: {what}{more}"


def compare(session: Session, study: Study, row: Analysis) -> Comparison | None:
    """What changed since the newest earlier study; None without one, or without scores."""
    said = json.loads(row.findings)
    prior = _newest(session, study, row, said)
    if prior is None:
        return None
    key, date, then = prior
    changes = {
        label: Change(display, then[label], score)
        for label, (display, score) in _scores(said).items()
        if label in then
    }
    return Comparison(key, date, changes) if changes else None


def with_archived(findings: str, date: str, prior: Findings) -> str:
    """A findings JSON that also holds what a study in the archive scored; nothing says whose."""
    scores = {f.label: f.score for f in prior.findings if f.score is not None}
    archived = {"date": date, "pack_digest": prior.pack.digest, "scores": scores}
    return json.dumps({**json.loads(findings), ARCHIVED: archived}, separators=(",", ":"))


def _newest(
    session: Session, study: Study, row: Analysis, said: Mapping[str, Any]
) -> tuple[str, str, Mapping[str, float]] | None:
    """Key, date and scores of the newest earlier study; of the same day, our own."""
    found, archived = priors.newest(session, study, row), said.get(ARCHIVED)
    known = "" if found is None else found[0].study_date
    fits = archived is not None and archived["pack_digest"] == row.pack_digest
    if archived is not None and fits and known < archived["date"]:
        return "", archived["date"], archived["scores"]
    if found is None:
        return None
    prior, before = found
    then = {label: score for label, (_, score) in _scores(json.loads(before.findings)).items()}
    return prior.key, prior.study_date, then


def _scores(said: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """Display and score by label, where the model publishes scores."""
    found = said["findings"]
    return {f["label"]: (f["display"], f["score"]) for f in found if f.get("score") is not None}
