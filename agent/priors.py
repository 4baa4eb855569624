"""How a study's scores changed since an earlier study that the same model has read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from db.models import Analysis, Study
from db.queries import priors

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
        key: of the earlier study, for a link.
        date: of the earlier study, as DICOM writes it.
        changes: by label.
    """

    key: str
    date: str
    changes: Mapping[str, Change] = field(default_factory=dict)

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
        return f"Compared with the study of {day}, same model: {what}{more}"


def compare(session: Session, study: Study, row: Analysis) -> Comparison | None:
    """What changed since the newest earlier study; None without one, or without scores."""
    found = priors.newest(session, study, row)
    if found is None:
        return None
    prior, before = found
    then, now = _scores(before.findings), _scores(row.findings)
    changes = {
        label: Change(display, then[label][1], score)
        for label, (display, score) in now.items()
        if label in then
    }
    return Comparison(prior.key, prior.study_date, changes) if changes else None


def _scores(findings: str) -> dict[str, tuple[str, float]]:
    """Display and score by label, where the model publishes scores."""
    said: list[dict[str, Any]] = json.loads(findings)["findings"]
    return {f["label"]: (f["display"], f["score"]) for f in said if f.get("score") is not None}
