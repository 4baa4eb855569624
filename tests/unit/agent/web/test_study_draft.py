"""The draft on the study page: unverified, with its marks, its triage and what is waited for."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from factories import rows

from agent.drafting import triage_json
from agent.settings import PrioritySettings
from agent.web.study_detail import study_detail
from db.models import Draft as DraftRow
from inference.findings import Acuity
from inference.report.draft import Draft, Sentence, Source, Triage, Verdict


def test_study_page_shows_the_draft_with_its_marks(tmp_path: Path) -> None:
    """Each sentence with what the guard says of it; who wrote it; the triage and its reason."""
    sentences = (
        Sentence("A bleed.", Verdict.SUPPORTED, labels=(rows.HEMORRHAGE,)),
        Sentence("A fracture.", Verdict.UNSUPPORTED, "no head looks for it"),
    )
    draft = Draft("CT head", sentences, Source.MODEL, "tiny 1")
    triage = Triage(Acuity.URGENT, "Acute bleed.", "r1")
    with rows.sessions(tmp_path).begin() as session:
        study = rows.study(session)
        rows.analysis(session, study)
        row = DraftRow(study_id=study.id, revision=1, created_at=rows.NOW, next_attempt_at=rows.NOW)
        row.draft, row.source, row.model = draft.to_json(), "model", "tiny 1"
        row.state, row.last_error, row.triage = "waiting", "no server", triage_json.write(triage)
        session.add(row)
        session.flush()
        detail = study_detail(session, study.key, PrioritySettings(), rows.NOW)

    assert detail is not None
    shown = detail.draft
    assert shown is not None
    assert [(s.verdict, s.labels) for s in shown.sentences] == [
        ("supported", (rows.HEMORRHAGE,)),
        ("unsupported", ()),
    ]
    assert (shown.source, shown.waiting_because, shown.triage_level) == (
        "model",
        "no server",
        "urgent",
    )
    assert shown.next_attempt_at == rows.NOW


def test_page_marks_unsupported_sentences_with_their_reason(web: Any) -> None:
    """Shown and marked, never left out here; how many, too."""
    draft = Draft(
        "CT head",
        (
            Sentence("A bleed.", Verdict.SUPPORTED, labels=(rows.HEMORRHAGE,)),
            Sentence("A fracture.", Verdict.UNSUPPORTED, "no head looks for 'fracture' <here>"),
        ),
        Source.MODEL,
        "tiny 1",
    )
    with web.sessions.begin() as session:
        study = rows.study(session)
        rows.analysis(session, study)
        row = DraftRow(study_id=study.id, revision=1, created_at=rows.NOW, next_attempt_at=rows.NOW)
        row.draft, row.source, row.model, row.state = draft.to_json(), "model", "tiny 1", "done"
        session.add(row)
        key = study.key

    page = web.client().get(f"/studies/{key}").text

    (marked,) = re.findall(r'<li class="draft-unsupported">(.*?)</li>', page)
    assert "unsupported</span> A fracture." in marked
    assert "no head looks for" in html.unescape(marked)
    assert "<here>" not in marked
    assert "does not support 1 of 2" in page
