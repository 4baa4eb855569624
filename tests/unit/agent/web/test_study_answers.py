"""Scores, referral and priority charted on the study page; change since an earlier study."""

from __future__ import annotations

import dataclasses
import html
import json
from typing import Any

import pytest
from factories import rows
from sqlalchemy.orm import Session

from agent import priors
from agent.web.answers import answers_of
from db.models import Analysis, Study
from inference.findings import REFERRAL, Finding, Findings, ModelPriority


def scored(label: str, score: float, **values: Any) -> Finding:
    """A finding of a model with scores."""
    return dataclasses.replace(rows.finding(label, 0.5), score=score, **values)


def prima(*found: Finding) -> Findings:
    """What such a model answered, with a priority of its own."""
    levels = ModelPriority(("none", "low", "high"), (-1.0, 0.5, 2.0))
    return dataclasses.replace(rows.findings(*found), model_priority=levels)


def read(
    session: Session, date: str, *found: Finding, minutes: int = 9, **values: Any
) -> tuple[Study, Analysis]:
    """A study of one patient on a day, analysed."""
    study = rows.study(session, **{"patient_id": "P1", "study_date": date, **values})
    made = rows.minutes_ago(minutes)
    return study, rows.analysis(session, study, prima(*found), created_at=made)


@pytest.fixture
def session(sessions: Any) -> Any:
    """An empty database."""
    with sessions.begin() as session:
        yield session


def test_charts_hold_the_highest_scores_and_the_models_own_priority() -> None:
    """Ten bars, more where more is present; referrals and levels beside them."""
    found = [scored(f"d{n}", 3.0 - n) for n in range(15)]
    found.append(scored("neurology", 0.4, kind=REFERRAL))
    charts = answers_of(json.loads(prima(*found).to_json()), None)
    assert charts is not None
    assert [line.label for line in charts.diagnoses] == [f"d{n}" for n in range(10)]
    assert charts.more == 5
    assert charts.diagnoses[0].share == pytest.approx(3 / 6)
    assert charts.diagnoses[9].share == -1
    assert [(line.label, line.present) for line in charts.referrals] == [("neurology", True)]
    assert [line.level for line in charts.levels if line.chosen] == ["high"]
    assert answers_of(json.loads(rows.findings().to_json()), None) is None


def test_the_change_is_that_since_the_newest_earlier_study_of_the_same_model(
    session: Session,
) -> None:
    """Not a later study, another patient's or issuer's, another version's, nor a later analysis."""
    read(session, "20260101", scored("glioma", -3.0), minutes=60)
    old, _ = read(session, "20260301", scored("glioma", 0.5), scored("gone", 1.0), minutes=50)
    read(session, "20260401", scored("glioma", 9.0), minutes=50, patient_id="P2")
    read(session, "20260402", scored("glioma", 9.0), minutes=50, issuer_of_patient_id="ELSE")
    read(session, "20270101", scored("glioma", 9.0), minutes=50)
    _, other = read(session, "20260403", scored("glioma", 9.0), minutes=50)
    other.pack_digest = "f" * 64
    read(session, "20260404", scored("glioma", 9.0), minutes=1)
    study, row = read(session, "20260501", scored("glioma", 1.75), scored("new", 0.2))
    session.flush()

    found = priors.compare(session, study, row)
    assert found is not None
    assert (found.key, found.date) == (old.key, "20260301")
    assert found.changes["glioma"].difference == pytest.approx(1.25)
    assert set(found.changes) == {"glioma"}
    assert found.text == (
        "Compared with the study of 2026-03-01, same model: Glioma +1.2 (to +1.8)"
    )


@pytest.mark.parametrize("values", [{"patient_id": ""}, {"study_date": ""}])
def test_without_identity_or_date_nothing_is_compared(
    session: Session, values: dict[str, str]
) -> None:
    """Two studies without a patient id are not of one patient."""
    read(session, "20260101", scored("glioma", 1.0), minutes=60, **{**values, "study_date": ""})
    read(session, "20260101", scored("glioma", 1.0), minutes=60, **{"patient_id": "", **values})
    study, row = read(session, "20260501", scored("glioma", 2.0), **values)
    assert priors.compare(session, study, row) is None


def test_the_page_shows_bars_referral_priority_and_change(web: Any) -> None:
    """The charts are there, without styles in attributes; JSON holds the same numbers."""
    with web.sessions.begin() as session:
        old, _ = read(session, "20260301", scored("glioma", 0.5), minutes=50)
        found = (
            scored("glioma", 1.5, grounding=rows.grounding(method="lime", fit=0.31)),
            scored("cyst", -1.0),
            scored("neurosurgery", 0.3, kind=REFERRAL),
        )
        study, _ = read(session, "20260501", *found)
        key, earlier = study.key, old.key
    page = html.unescape(web.client().get(f"/studies/{key}").text)
    assert "Diagnoses by score" in page
    assert "+1.50" in page
    assert "-1.00" in page
    assert "Priority of the model" in page
    assert f'href="/studies/{earlier}"' in page
    assert "Glioma +1.0 (to +1.5)" in page
    assert "LIME" in page
    assert "0.31" in page
    assert "style=" not in page
    said = web.client().get(f"/api/studies/{key}").json()["analyses"][0]["answers"]
    assert said["diagnoses"][0]["change"] == pytest.approx(1.0)
    assert said["levels"][2]["chosen"] is True


def test_a_study_fetched_from_the_archive_is_named_and_not_linked(web: Any) -> None:
    """There is no page of it here; date, origin and change are shown."""
    with web.sessions.begin() as session:
        study, row = read(session, "20260501", scored("glioma", 1.5))
        row.findings = priors.with_archived(row.findings, "20260301", prima(scored("glioma", 0.5)))
        key = study.key
    page = html.unescape(web.client().get(f"/studies/{key}").text)
    assert "2026-03-01 (fetched from the archive), same model: Glioma +1.0" in page
    assert page.count("(fetched from the archive)") == 2
    assert 'href="/studies/"' not in page
    said = web.client().get(f"/api/studies/{key}").json()["analyses"][0]["answers"]
    assert said["compared_with"] == ["", "20260301"]
