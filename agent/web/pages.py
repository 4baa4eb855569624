"""Render templates with what every page shows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment

from agent.settings import Level, WebSettings
from agent.settings_viewer import fill
from agent.web.access import asking
from agent.web.dependencies import WebDependencies
from agent.worklist import Sort
from agent.worklist_entries import StudyLine
from db.states import ReadingState, StudyState

STATIC = Path(__file__).parent / "static"
SORT_TEXT = {
    Sort.ORDER: "Reading order",
    Sort.NEWEST: "Newest first",
    Sort.OLDEST: "Longest wait first",
    Sort.PATIENT: "Patient",
    Sort.SCORE: "Most probable finding",
}


class Pages:
    """The templates and the values common to all of them."""

    def __init__(self, environment: Environment, deps: WebDependencies) -> None:
        self._environment = environment
        environment.globals.update(
            levels=list(Level),
            states=list(StudyState),
            reading_states=list(ReadingState),
            demonstration=deps.demonstration,
            packs=deps.packs,
            refresh_s=deps.web.refresh_s,
            app_version=deps.version,
            asset=_assets(),
            asking=asking,
            rule_tester=deps.rules is not None,
            sorts=SORT_TEXT,
            viewers=lambda study: _viewers(deps.web, study),
        )

    def render(self, name: str, **values: Any) -> str:
        """The text of a template."""
        return self._environment.get_template(name).render(**values)


def _viewers(web: WebSettings, study: StudyLine) -> list[tuple[str, str]]:
    """(name, address) of each viewer that can be given this study."""
    templates = (("PACS", web.viewer_url), ("OHIF", web.ohif_url))
    addresses = [(n, fill(template, study.study_uid, study.accession)) for n, template in templates]
    return [(name, address) for name, address in addresses if address]


def _assets() -> dict[str, str]:
    """Name -> URL with a digest, so that a new version never meets an old script."""
    return {
        path.name: f"/static/{path.name}?{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
        for path in sorted(STATIC.iterdir())
    }
