"""What the record makes of received instances: the same on SQLite and PostgreSQL, both ways in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from factories import arrivals
from sqlalchemy.orm import Session, sessionmaker

from db.models import Event, Instance, Series, Study
from db.queries import intake
from db.queries.intake_usual import Recorder
from db.queries.received import Outcome, Received, SeriesValues, StudyValues
from db.states import StudyState

Sessions = sessionmaker[Session]
Record = Callable[[Sequence[Received]], list[Outcome]]


@pytest.fixture(params=["usual", "general"])
def record(request: pytest.FixtureRequest, sessions: Sessions) -> Record:
    """Record and commit a batch, by the two prepared statements or by the general way."""
    engine = arrivals.engine_of(sessions)
    if request.param == "usual":
        return Recorder(engine).record

    def general(batch: Sequence[Received]) -> list[Outcome]:
        with engine.begin() as connection:
            return intake.record(connection, batch)

    return general


def study(sessions: Sessions, uid: str = "1.2.1") -> Study:
    """The study's row."""
    with sessions() as session:
        return session.scalars(sa.select(Study).filter_by(study_uid=uid)).one()


def events(sessions: Sessions) -> list[str]:
    """Kinds of all events, in order."""
    with sessions() as session:
        return list(session.scalars(sa.select(Event.kind).order_by(Event.id)))


def change(sessions: Sessions, **values: Any) -> None:
    """Set columns of the only study, as later rooms would."""
    with sessions.begin() as session:
        session.execute(sa.update(Study).values(**values))


def test_the_first_instance_makes_study_series_and_event(record: Record, sessions: Sessions):
    """All columns of the header reach the record."""
    item = arrivals.received(
        study=StudyValues(patient_id="P1", patient_name="A^B", description="HEAD"),
        series=SeriesValues(modality="CT", description="AX", number=3),
    )
    outcomes = record([item])

    row = study(sessions)
    with sessions() as session:
        series = session.scalars(sa.select(Series)).one()
        instance = session.scalars(sa.select(Instance)).one()
    assert outcomes == [Outcome.NEW]
    assert (row.patient_id, row.patient_name, row.description) == ("P1", "A^B", "HEAD")
    assert (row.state, row.revision, row.instance_count) == (StudyState.RECEIVING, 0, 1)
    assert (row.first_instance_at, row.last_instance_at) == (item.received_at, item.received_at)
    assert (row.modalities, row.calling_ae, len(row.key)) == ("CT", "SCANNER", 32)
    assert (series.modality, series.description, series.number) == ("CT", "AX", 3)
    assert not series.own_result
    assert (instance.sop_uid, instance.path, instance.version) == (item.sop_uid, item.path, 0)
    assert (instance.size_bytes, instance.number) == (1001, 1)
    assert (instance.received_at, instance.sha256) == (item.received_at, None)
    assert events(sessions) == ["first_instance"]


def test_later_instances_are_counted_and_timed(record: Record, sessions: Sessions):
    """One batch or many: count and last time follow, first time stays."""
    record([arrivals.received(1)])
    record([arrivals.received(2), arrivals.received(3, number=None)])

    row = study(sessions)
    assert row.instance_count == 3
    assert row.first_instance_at == arrivals.received(1).received_at
    assert row.last_instance_at == arrivals.received(3).received_at
    assert events(sessions) == ["first_instance"]


def test_several_studies_share_a_batch(record: Record, sessions: Sessions):
    """Each gets its own counts."""
    first = [arrivals.received(1), arrivals.received(2, study_uid="1.3", series_uid="1.3.1")]
    record(first)
    again = [arrivals.received(4, study_uid="1.3", series_uid="1.3.1"), arrivals.received(3)]
    record([*again, arrivals.received(5)])

    assert study(sessions, "1.2.1").instance_count == 3
    assert study(sessions, "1.3").instance_count == 2


def test_a_recorded_file_changes_nothing(record: Record, sessions: Sessions):
    """A repeated instance is known; neither count nor quiet time move."""
    record([arrivals.received(1)])
    outcomes = record([arrivals.received(1, received_at=arrivals.NOW + dt.timedelta(hours=1))])

    row = study(sessions)
    assert outcomes == [Outcome.KNOWN]
    assert row.instance_count == 1
    assert row.last_instance_at == arrivals.received(1).received_at


def test_the_same_file_twice_in_a_batch_counts_once(record: Record, sessions: Sessions):
    """Two associations may bring the same instance at the same moment."""
    outcomes = record([arrivals.received(1), arrivals.received(1), arrivals.received(2)])

    assert outcomes == [Outcome.NEW, Outcome.KNOWN, Outcome.NEW]
    assert study(sessions).instance_count == 2


def test_other_bytes_are_a_new_version(record: Record, sessions: Sessions):
    """Both are kept, an Event tells, the count of distinct instances stays."""
    record([arrivals.received(1)])
    outcomes = record([arrivals.received(1, path="elsewhere.v1.dcm"), arrivals.received(2)])
    third = record([arrivals.received(1, path="elsewhere.v2.dcm")])

    with sessions() as session:
        versions = session.execute(
            sa.select(Instance.path, Instance.version)
            .filter_by(sop_uid="1.2.1.1.1")
            .order_by(Instance.version)
        ).all()
    assert (outcomes, third) == ([Outcome.VERSION, Outcome.NEW], [Outcome.VERSION])
    assert [version for _, version in versions] == [0, 1, 2]
    assert study(sessions).instance_count == 2
    assert events(sessions) == ["first_instance", "instance_version", "instance_version"]


def test_identity_is_the_latest_and_descriptions_stay(record: Record, sessions: Sessions):
    """A dose report without description does not blank out the scanner's; identity is verbatim."""
    full = StudyValues(patient_id="P1", accession_number="A1", description="HEAD", body_part="HEAD")
    record([arrivals.received(1, study=full)])
    record([arrivals.received(2, study=StudyValues(patient_id="P2", body_part="NECK"))])

    row = study(sessions)
    assert (row.patient_id, row.accession_number) == ("P2", "")
    assert (row.description, row.body_part) == ("HEAD", "NECK")


def test_modalities_are_joined_and_sorted(record: Record, sessions: Sessions):
    """Of all series, each once; empty ones not."""
    for number, modality in enumerate(["MR", "CT", "", "MR"]):
        values = SeriesValues(modality=modality)
        record([arrivals.received(number, series_uid=f"1.9.{number}", series=values)])

    assert study(sessions).modalities == "CT\\MR"


def test_own_results_are_kept_but_never_counted(record: Record, sessions: Sessions):
    """Neither count, nor quiet time, nor modalities, nor identity follow our own results."""
    record([arrivals.received(1, study=StudyValues(patient_id="P1"))])
    own = arrivals.received(
        2, series_uid="1.9", own_result=True, series=SeriesValues(modality="SR")
    )
    outcomes = record([own])

    row = study(sessions)
    with sessions() as session:
        kept = session.scalars(sa.select(Series).filter_by(series_uid="1.9")).one()
    assert outcomes == [Outcome.NEW]
    assert kept.own_result
    assert (row.instance_count, row.modalities, row.patient_id) == (1, "", "P1")
    assert row.last_instance_at == arrivals.received(1).received_at


def test_a_study_of_own_results_only_is_skipped(record: Record, sessions: Sessions):
    """It must not wait for analysis; images that come later are late instances."""
    record([arrivals.received(1, own_result=True)])

    row = study(sessions)
    assert (row.state, row.instance_count) == (StudyState.SKIPPED, 0)
    assert row.reason


@pytest.mark.parametrize("state", [StudyState.DONE, StudyState.SKIPPED, StudyState.ANALYSING])
def test_late_instances_are_told_once_and_the_state_is_left(
    record: Record, sessions: Sessions, state: StudyState
):
    """Assembly reopens the study; the intake counts and writes one Event per revision."""
    record([arrivals.received(1)])
    change(sessions, state=state, revision=1, assembled_count=1)
    record([arrivals.received(2), arrivals.received(3)])
    record([arrivals.received(4)])

    row = study(sessions)
    assert (row.state, row.instance_count, row.assembled_count) == (state, 4, 1)
    assert events(sessions) == ["first_instance", "late_instances"]


def test_a_removed_study_is_made_again(record: Record, sessions: Sessions):
    """Retention may remove a study at any time; nothing is remembered across transactions."""
    record([arrivals.received(1)])
    with sessions.begin() as session:
        for table in (Event, Instance, Series, Study):
            session.execute(sa.delete(table))
    outcomes = record([arrivals.received(2)])

    assert outcomes == [Outcome.NEW]
    assert study(sessions).instance_count == 1


def test_a_failed_batch_leaves_nothing(record: Record, sessions: Sessions):
    """All or nothing: a row that cannot be written takes its batch with it."""
    record([arrivals.received(1)])
    broken = arrivals.received(3, sop_class_uid=None)
    with pytest.raises(sa.exc.IntegrityError):
        record([arrivals.received(2), broken])

    assert study(sessions).instance_count == 1
