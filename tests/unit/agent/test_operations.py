"""What operators order: a study goes back to where its work can go on, and to no other place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent import operations
from agent.operations import NothingToRetry, UnknownStudy
from db.models import Study
from db.states import StudyState


def _study(sessions: sessionmaker[Session], *, analysed: bool, **values: object) -> int:
    with sessions.begin() as session:
        study = rows.study(session, **values)
        if analysed:
            rows.analysis(session, study)
        return study.id


def _retry(sessions: sessionmaker[Session], study_id: int, *, reanalyse: bool = False) -> Study:
    with sessions.begin() as session:
        operations.retry_study(session, str(study_id), rows.NOW, reanalyse=reanalyse)
    with sessions() as session:
        return session.get_one(Study, study_id)


@pytest.mark.parametrize(
    ("state", "analysed", "reanalyse", "goes_to", "revision"),
    [
        ("failed", False, False, "assembled", 1),
        ("failed", True, False, "composing", 1),
        ("failed", True, True, "assembled", 2),
        ("failed", False, True, "assembled", 1),
        ("skipped", False, False, "assembled", 1),
        ("skipped", False, True, "assembled", 1),
        ("done", True, True, "assembled", 2),
    ],
)
def test_retry_goes_on_where_the_work_stopped(
    sessions: sessionmaker[Session],
    state: str,
    analysed: bool,
    reanalyse: bool,
    goes_to: str,
    revision: int,
) -> None:
    """An analysis that is there is used again unless a new one is asked for."""
    study_id = _study(sessions, analysed=analysed, state=state, attempts=3)
    study = _retry(sessions, study_id, reanalyse=reanalyse)

    assert (study.state, study.revision) == (goes_to, revision)
    assert (study.attempts, study.lease_owner, study.next_attempt_at) == (0, None, None)
    assert "operator" in study.reason


@pytest.mark.parametrize("state", [s for s in StudyState if s not in {"failed", "skipped", "done"}])
@pytest.mark.parametrize("reanalyse", [False, True])
def test_study_at_work_is_left_alone(tmp_path: Path, state: StudyState, reanalyse: bool) -> None:
    """Two rooms must never work on one study."""
    sessions = rows.sessions(tmp_path)
    study_id = _study(sessions, analysed=True, state=state)

    with pytest.raises(NothingToRetry, match=f"is {state}: nothing failed"):
        _retry(sessions, study_id, reanalyse=reanalyse)


def test_done_study_names_the_way_to_a_new_revision(tmp_path: Path) -> None:
    """The message holds the option."""
    sessions = rows.sessions(tmp_path)
    study_id = _study(sessions, analysed=True, state="done")

    with pytest.raises(NothingToRetry, match="--reanalyse"):
        _retry(sessions, study_id)


def test_study_is_found_by_id_and_by_uid(tmp_path: Path) -> None:
    """And not by anything else, however long."""
    sessions = rows.sessions(tmp_path)
    study_id = _study(sessions, analysed=False, study_uid="2.25.77")
    with sessions() as session:
        assert operations.find_study(session, str(study_id)).study_uid == "2.25.77"
        assert operations.find_study(session, "2.25.77").id == study_id
        for reference in ("404", "9" * 60, "", "2.25", "' or 1=1"):
            with pytest.raises(UnknownStudy):
                operations.find_study(session, reference)


def test_listings_hold_no_patient_data(tmp_path: Path) -> None:
    """They are read on terminals, pasted into tickets and piped into logs."""
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        study = rows.study(session)
        rows.series(session, study)
        rows.delivery(session, rows.result(session, rows.analysis(session, study)))
        rows.event(session, study)
        identity = (study.patient_id, study.patient_name, study.accession_number, "19600101")
        said = json.dumps(
            [
                operations.list_studies(session, None, 10),
                operations.study_details(session, str(study.id)),
                operations.list_deliveries(session, None, None, 10),
            ],
            default=str,
        )

    assert [value for value in identity if value in said] == []


def test_listings_are_filtered_limited_and_newest_first(tmp_path: Path) -> None:
    """What an operator asks for, and no more."""
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        ids = {}
        for minutes in (30, 10, 20):
            study = rows.study(session, state="failed", last_instance_at=rows.minutes_ago(minutes))
            result = rows.result(session, rows.analysis(session, study))
            rows.delivery(session, result, destination=f"d{minutes}")
            ids[minutes] = study.id
        rows.study(session, state="done")
        failed = operations.list_studies(session, "failed", 2)
        sent = operations.list_deliveries(session, "delivered", "d20", 10)

    assert [s["id"] for s in failed] == [ids[10], ids[20]]
    assert [d["destination"] for d in sent] == ["d20"]
