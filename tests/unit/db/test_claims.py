"""Claims: a study has one owner, until its lease ends. On SQLite and on PostgreSQL."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from db.models import Study
from db.queries import claims
from db.states import StudyState

NOW = rows.NOW
LEASE = dt.timedelta(minutes=5)


def queued(session: Session, **values: object) -> Study:
    """A study that waits for the model."""
    return rows.study(session, **{"state": StudyState.QUEUED, "assembled_at": NOW, **values})


def claim(
    sessions: sessionmaker[Session], owner: str = "a", now: dt.datetime = NOW
) -> claims.Claim | None:
    """Claim the next queued study."""
    with sessions.begin() as session:
        return claims.claim(session, [StudyState.QUEUED], owner=owner, lease=LEASE, now=now)


def test_a_claimed_study_is_nobody_elses(sessions: sessionmaker[Session]) -> None:
    """The second claim finds nothing; the study shows that it is being analysed."""
    with sessions.begin() as session:
        study = queued(session)

    first, second = claim(sessions), claim(sessions, "b")

    assert first is not None
    assert (first.study_id, first.state, first.attempts) == (study.id, StudyState.ANALYSING, 1)
    assert second is None


def test_many_workers_share_the_queue_without_doubles(sessions: sessionmaker[Session]) -> None:
    """Eight threads drain twenty studies; each is claimed exactly once."""
    with sessions.begin() as session:
        wanted = {queued(session).id for _ in range(20)}
    taken: list[int] = []

    def drain(owner: str) -> None:
        while (got := claim(sessions, owner)) is not None:
            taken.append(got.study_id)

    threads = [threading.Thread(target=drain, args=(f"w{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(wanted) == sorted(taken)


def test_an_ordered_stat_study_is_analysed_first(sessions: sessionmaker[Session]) -> None:
    """Then the longest waiting."""
    with sessions.begin() as session:
        late = queued(session, assembled_at=NOW)
        early = queued(session, assembled_at=rows.minutes_ago(9))
        stat = queued(session, assembled_at=NOW, ordered_priority="STAT")

    order = [c.study_id for _ in range(3) if (c := claim(sessions)) is not None]

    assert order == [stat.id, early.id, late.id]


def test_an_expired_lease_gives_the_study_back(sessions: sessionmaker[Session]) -> None:
    """A worker that vanished does not keep its study; it may not record anything either."""
    with sessions.begin() as session:
        study = queued(session)
    claim(sessions, "vanished")
    later = NOW + LEASE

    with sessions.begin() as session:
        assert claims.expire(session, later) == 1
    again = claim(sessions, "b", later)

    assert again is not None
    assert again.attempts == 2
    with sessions.begin() as session:
        assert claims.owned(session, study.id, "vanished") is None
        assert claims.owned(session, study.id, "b") is not None


def test_a_study_waits_for_its_next_attempt(sessions: sessionmaker[Session]) -> None:
    """After a failure it is left alone until its time."""
    with sessions.begin() as session:
        queued(session, next_attempt_at=NOW + dt.timedelta(seconds=10))

    assert claim(sessions) is None
    assert claim(sessions, now=NOW + dt.timedelta(seconds=10)) is not None


def test_a_restarted_node_frees_what_it_held(sessions: sessionmaker[Session]) -> None:
    """Only its own claims: other nodes go on."""
    with sessions.begin() as session:
        queued(session)
        queued(session)
    claim(sessions, "node1/analysis")
    claim(sessions, "node2/analysis")

    with sessions.begin() as session:
        assert claims.release_all_of(session, "node1/", NOW) == 1


@pytest.mark.parametrize("owner", ["a", "b"])
def test_only_the_owner_prolongs_a_lease(sessions: sessionmaker[Session], owner: str) -> None:
    """A lost lease cannot be renewed."""
    with sessions.begin() as session:
        study = queued(session)
    claim(sessions, "a")

    with sessions.begin() as session:
        renewed = claims.renew(session, study.id, owner=owner, lease=LEASE, now=NOW)

    assert renewed is (owner == "a")
