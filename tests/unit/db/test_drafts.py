"""Claims on drafts and on arriving studies, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import datetime as dt

from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from db.models import Draft, Study
from db.queries import arriving, claims, drafts
from db.queries.drafts import ClaimedDraft
from db.states import StudyState

LEASE = dt.timedelta(minutes=5)
PATIENCE = dt.timedelta(minutes=10)


def _claim(sessions: sessionmaker[Session], now: dt.datetime = rows.NOW) -> ClaimedDraft | None:
    with sessions.begin() as session:
        return drafts.claim(session, owner="n/d", lease=LEASE, now=now, patience=PATIENCE)


def _draft(session: Session, **values: object) -> Study:
    study = rows.study(session, **values)
    row = Draft(study_id=study.id, revision=1, created_at=rows.NOW, next_attempt_at=rows.NOW)
    session.add(row)
    return study


def test_drafts_are_claimed_once_and_in_the_order_of_urgency(
    sessions: sessionmaker[Session],
) -> None:
    """The study that is read first gets its draft first; a lease that ran out is given again."""
    with sessions.begin() as session:
        low, stat = _draft(session, priority="LOW").id, _draft(session, priority="STAT").id

    first, second = _claim(sessions), _claim(sessions)
    assert first is not None
    assert second is not None
    assert (first.study_id, second.study_id) == (stat, low)
    assert _claim(sessions) is None

    again = _claim(sessions, rows.NOW + LEASE)
    assert again is not None
    assert (again.id, again.attempts) == (first.id, 2)
    with sessions.begin() as session:
        assert drafts.owned(session, first) is None
        assert drafts.renew(session, again, lease=LEASE, now=rows.NOW)


def test_drafts_wait_while_a_study_waits_for_the_model(sessions: sessionmaker[Session]) -> None:
    """Not for ever: after their patience they take their turn."""
    with sessions.begin() as session:
        _draft(session)
        rows.study(session, state=StudyState.QUEUED)

    assert _claim(sessions) is None
    assert _claim(sessions, rows.NOW + PATIENCE) is not None


def test_mates_are_of_the_same_packs_and_not_beside_a_stat(sessions: sessionmaker[Session]) -> None:
    """Only what waits already goes along; a study ordered STAT goes alone."""
    takes, more = [StudyState.QUEUED], {"owner": "n/m", "lease": LEASE, "now": rows.NOW}
    with sessions.begin() as session:
        packs = ("a", "b", "a", "a, b", "a")
        ids = [rows.study(session, state="queued", pack=pack).id for pack in packs]
        first = claims.claim(session, takes, **more)
        assert first is not None
        mates = claims.claim_mates(session, first, 1, **more)
        assert [first.study_id, *(m.study_id for m in mates)] == [ids[0], ids[2]]
        urgent = rows.study(session, state="queued", pack="a", ordered_priority="stat")
        second = claims.claim(session, takes, **more)
        assert second is not None
        assert second.study_id == urgent.id
        assert claims.claim_mates(session, second, 5, **more) == []


def test_arriving_series_are_those_that_fell_quiet(sessions: sessionmaker[Session]) -> None:
    """Counted by image, told apart by whether they hold many frames; results of ours left out."""
    with sessions.begin() as session:
        study = rows.study(session, state=StudyState.RECEIVING, revision=0, instance_count=3)
        quiet, late, own = (
            rows.series(session, study, own_result=mine) for mine in (False, False, True)
        )
        enhanced = arriving.MULTI_FRAME[0]
        rows.instance(session, quiet, received_at=rows.minutes_ago(2), sop_class_uid=enhanced)
        rows.instance(session, late, received_at=rows.NOW)
        rows.instance(session, own, received_at=rows.minutes_ago(2))

        (found,) = arriving.quiet_series(session, study.id, rows.minutes_ago(1))
        assert (found.id, found.images, found.frames) == (quiet.id, 1, True)
        assert [s.id for s in arriving.unassembled(session)] == [study.id]
        claim = claims.claim_receiving(session, study.id, owner="n/p", lease=LEASE, now=rows.NOW)
        assert claim is not None
        assert claim.state is StudyState.RECEIVING
