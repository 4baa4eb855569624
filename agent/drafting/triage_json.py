"""A triage as it is kept in the record."""

from __future__ import annotations

import dataclasses
import json

from inference.findings import Acuity
from inference.report.draft import Triage


def write(triage: Triage) -> str:
    """As kept in `db.models.Draft.triage`."""
    return json.dumps(dataclasses.asdict(triage))


def read(text: str) -> Triage:
    """Inverse of `write`."""
    data = json.loads(text)
    return Triage(Acuity(data["level"]), data["reason"], data["model"])
