"""After a crash: spool and record agree again, leftovers go, digests are filled in."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from factories import arrivals, rows
from sqlalchemy.orm import Session, sessionmaker

from agent.intake import janitor, recovery
from agent.intake.handler import IntakeHandler
from agent.intake.janitor import JanitorSettings
from agent.intake.recovery import Recovered
from agent.intake.spool import Spool
from db.models import Instance, Study

Sessions = sessionmaker[Session]


@pytest.fixture
def lite(tmp_path: Path) -> Sessions:
    """A fresh SQLite database."""
    return rows.sessions(tmp_path)


@pytest.fixture
def intake(tmp_path: Path, lite: Sessions) -> IntakeHandler:
    """An intake that never runs out of disk."""
    return arrivals.handler(tmp_path, lite)


def reconcile(intake: IntakeHandler, sessions: Sessions) -> Recovered:
    """Run the start-up check."""
    spool = Spool(intake.incoming.parent)
    return recovery.reconcile(spool, arrivals.engine_of(sessions), now=arrivals.NOW)


def forget(sessions: Sessions, *conditions: sa.ColumnElement[bool]) -> None:
    """Remove rows, as if the crash had come before the commit."""
    with sessions.begin() as session:
        session.execute(sa.delete(Instance).where(*conditions))


def test_a_sound_spool_is_left_alone(intake: IntakeHandler, lite: Sessions):
    """Nothing to index, nothing missing."""
    for ds in arrivals.ct(3):
        intake.store(arrivals.arrive(intake.incoming, ds))

    assert reconcile(intake, lite) == Recovered(indexed=0, unreadable=0, missing=0)


def test_files_without_row_are_indexed(intake: IntakeHandler, lite: Sessions):
    """Of a known study and of one that has no row at all."""
    known, unknown = arrivals.ct(2), arrivals.ct(1, patient="2")
    for ds in (*known, *unknown):
        intake.store(arrivals.arrive(intake.incoming, ds))
    forget(lite, Instance.sop_uid != str(known[0].SOPInstanceUID))
    with lite.begin() as session:
        session.execute(sa.text("DELETE FROM event"))
        gone = session.scalars(sa.select(Study.id).filter_by(patient_id="PAT2")).one()
        session.execute(sa.text(f"DELETE FROM series WHERE study_id = {gone}"))
        session.execute(sa.text(f"DELETE FROM study WHERE id = {gone}"))

    found = reconcile(intake, lite)

    with lite() as session:
        paths = set(session.scalars(sa.select(Instance.path)))
        patients = set(session.scalars(sa.select(Study.patient_id)))
    assert found == Recovered(indexed=2, unreadable=0, missing=0)
    assert len(paths) == 3
    assert patients == {"PAT1", "PAT2"}
    assert reconcile(intake, lite).indexed == 0


def test_rows_without_file_raise_the_alarm(intake: IntakeHandler, lite: Sessions):
    """Lost data is counted, and the row stays as evidence."""
    for ds in arrivals.ct(2):
        intake.store(arrivals.arrive(intake.incoming, ds))
    with lite() as session:
        path = session.scalars(sa.select(Instance.path)).first()
    (intake.incoming.parent / str(path)).unlink()

    assert reconcile(intake, lite).missing == 1


def test_a_foreign_file_is_left_where_it_is(intake: IntakeHandler, lite: Sessions):
    """What is no DICOM instance is counted, not touched."""
    folder = intake.incoming.parent / "1.2" / "3.4"
    folder.mkdir(parents=True)
    (folder / "5.6.dcm").write_bytes(b"not DICOM")

    found = reconcile(intake, lite)

    assert found == Recovered(indexed=0, unreadable=1, missing=0)
    assert (folder / "5.6.dcm").exists()


def test_the_janitor_sweeps_interrupted_transfers_and_old_quarantine(intake: IntakeHandler):
    """Each by its own age."""
    spool = Spool(intake.incoming.parent)
    for folder, age in ((spool.incoming, 100), (spool.incoming, 1), (spool.quarantine, 100)):
        path = folder / f"{age}.part"
        path.write_bytes(b"")
        os.utime(path, (1000 - age, 1000 - age))
    settings = JanitorSettings(keep_incoming_s=50, keep_quarantine_s=200)

    assert janitor.sweep(spool, settings, now_s=1000) == 1
    assert [path.name for path in spool.incoming.iterdir()] == ["1.part"]
    assert len(list(spool.quarantine.iterdir())) == 1


def test_digests_are_filled_in_batches(intake: IntakeHandler, lite: Sessions):
    """Up to the limit each time, until none is missing."""
    for ds in arrivals.ct(3):
        intake.store(arrivals.arrive(intake.incoming, ds))
    spool = Spool(intake.incoming.parent)
    with lite() as session:
        done = [janitor.digest_pending(session, spool, limit=2) for _ in range(3)]
        rows_ = session.execute(sa.select(Instance.path, Instance.sha256)).all()

    assert done == [2, 1, 0]
    for path, digest in rows_:
        assert digest == hashlib.sha256((spool.root / path).read_bytes()).hexdigest()
