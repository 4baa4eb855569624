"""A study and its reading task are one."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from factories import rows
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from agent.analysis import record
from agent.settings import PrioritySettings, UpsSettings
from agent.web import feedback
from agent.workitems import content, following
from agent.workitems.service import Workitems
from db.models import Study, Workitem
from db.queries import workitems as queries
from db.states import ReadingState
from dicom_nodes.ups import Refused, Status

POLICY = PrioritySettings()
LOCK = "2.25.77"


class Ward:
    """A record with one study in it."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.sessions = sessions
        self.workitems = Workitems(sessions, UpsSettings(), POLICY, clock=lambda: rows.NOW)

    def study(self, **values: Any) -> int:
        """Add a study; its id."""
        with self.sessions.begin() as session:
            return rows.study(session, **values).id

    def follow(self) -> int:
        """The sweep."""
        return following.catch_up(self.sessions, POLICY, rows.NOW)

    def change(self, study_id: int, **values: Any) -> None:
        """Change the study behind the back of its task."""
        with self.sessions.begin() as session:
            session.execute(sa.update(Study).where(Study.id == study_id).values(**values))

    def read(self, study_id: int, state: ReadingState) -> None:
        """As the page does."""
        with self.sessions.begin() as session:
            study = session.get_one(Study, study_id)
            feedback.set_reading_state(session, study, state, who="ada", now=rows.NOW)

    def reading_state(self, study_id: int) -> str:
        """Of the study."""
        with self.sessions() as session:
            return session.get_one(Study, study_id).reading_state

    def tasks(self) -> list[Workitem]:
        """All workitems, oldest first."""
        with self.sessions() as session:
            return list(session.execute(sa.select(Workitem).order_by(Workitem.id)).scalars())

    def task(self) -> Dataset:
        """The newest one, as a client sees it."""
        return self.workitems.retrieve(self.tasks()[-1].uid)

    def states(self) -> list[str]:
        """Of all, oldest first."""
        return [row.state for row in self.tasks()]


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    """An empty record."""
    return Ward(rows.sessions(tmp_path))


def test_the_task_moves_in_the_transaction_of_the_priority(ward: Ward) -> None:
    """Whoever sees the new level sees the new task, and the reason with the exact level."""
    with ward.sessions.begin() as session:
        study = rows.study(session, ordered_priority="ROUTINE")
        rows.analysis(session, study)
        record.set_priority(session, study, POLICY, rows.NOW, who="test")
        row = queries.newest_of_study(session, study.study_uid)
        assert row is not None
        assert (row.priority, row.rank, row.state) == ("HIGH", 0, "SCHEDULED")
        level, reason = study.priority, study.priority_reason
    task = ward.task()
    assert task.CommentsOnTheScheduledProcedureStep.startswith(f"{level}: {reason}")
    assert "Research use only" in task.CommentsOnTheScheduledProcedureStep


def test_every_open_study_has_one_task_and_a_second_look_changes_nothing(ward: Ward) -> None:
    """The sweep makes what is missing, once; what was read before needs none."""
    ward.study(number=1, ordered_priority="STAT")
    ward.study(number=2)
    ward.study(number=3, reading_state=ReadingState.READ)
    assert (ward.follow(), ward.follow()) == (2, 0)
    assert [(row.priority, row.rank) for row in ward.tasks()] == [("HIGH", 0), ("MEDIUM", 2)]
    again = ward.task().SOPInstanceUID
    assert again == content.uid_of("2.25.1002", "1")


def test_a_merged_patient_and_a_changed_order_are_followed(ward: Ward) -> None:
    """What changes the study elsewhere reaches its task by the sweep."""
    study = ward.study(ordered_priority="ROUTINE")
    ward.follow()
    ward.change(study, patient_id="OTHER", ordered_priority="STAT")
    assert (ward.follow(), ward.follow()) == (1, 0)
    task = ward.task()
    assert (task.PatientID, task.ScheduledProcedureStepPriority) == ("OTHER", "HIGH")


def test_the_reader_of_the_page_moves_the_task(ward: Ward) -> None:
    """Reading claims it, read completes it with what a final state requires."""
    study = ward.study()
    ward.follow()
    ward.read(study, ReadingState.READING)
    assert ward.states() == ["IN PROGRESS"]
    ward.read(study, ReadingState.READ)
    assert ward.states() == ["COMPLETED"]
    (performed,) = ward.task().UnifiedProcedureStepPerformedProcedureSequence
    assert performed.PerformedProcedureStepEndDateTime == "20261123083000+0000"
    assert ward.follow() == 0


def test_a_study_that_is_put_back_gets_another_task(ward: Ward) -> None:
    """A workitem never goes back to SCHEDULED; the list must not lose the study."""
    study = ward.study()
    ward.follow()
    ward.read(study, ReadingState.READING)
    ward.read(study, ReadingState.UNREAD)
    assert ward.states() == ["CANCELED", "SCHEDULED"]
    ward.read(study, ReadingState.READ)
    ward.read(study, ReadingState.UNREAD)
    assert ward.states() == ["CANCELED", "COMPLETED", "SCHEDULED"]
    assert len({row.uid for row in ward.tasks()}) == 3


def test_the_performer_of_the_task_moves_the_study(ward: Ward) -> None:
    """Claim, complete: reading, read; a canceled claim puts the study back on the list."""
    study = ward.study()
    ward.follow()
    uid = ward.tasks()[0].uid
    assert ward.workitems.change_state(uid, "IN PROGRESS", LOCK, "PACS") is Status.SUCCESS
    assert ward.reading_state(study) == "reading"
    ward.workitems.change_state(uid, "CANCELED", LOCK, "PACS")
    assert (ward.reading_state(study), ward.states()) == ("unread", ["CANCELED", "SCHEDULED"])
    uid = ward.tasks()[1].uid
    ward.workitems.change_state(uid, "IN PROGRESS", LOCK, "PACS")
    ward.workitems.change_state(uid, "COMPLETED", LOCK, "PACS")
    assert (ward.reading_state(study), ward.states()[-1]) == ("read", "COMPLETED")


def test_a_priority_set_from_outside_counts_as_ordered(ward: Ward) -> None:
    """It raises; it lowers nothing that a model found, and says so."""
    with ward.sessions.begin() as session:
        study = rows.study(session, ordered_priority="ROUTINE")
        rows.analysis(session, study)
        record.set_priority(session, study, POLICY, rows.NOW, who="test")
        before = study.priority
    changes = Dataset()
    changes.ScheduledProcedureStepPriority = "LOW"
    assert ward.workitems.update(ward.tasks()[0].uid, changes) is Status.COERCED
    assert ward.task().ScheduledProcedureStepPriority == "HIGH"
    plain = ward.study(ordered_priority="ROUTINE")
    ward.follow()
    changes.ScheduledProcedureStepPriority = "HIGH"
    assert ward.workitems.update(ward.tasks()[1].uid, changes) is Status.SUCCESS
    with ward.sessions() as session:
        assert session.get_one(Study, plain).ordered_priority == "HIGH"
        assert before == "STAT"


def test_nobody_cancels_the_reading_of_a_study_by_request(ward: Ward) -> None:
    """A study must not vanish from the list unread."""
    ward.study()
    ward.follow()
    with pytest.raises(Refused) as caught:
        ward.workitems.request_cancel(ward.tasks()[0].uid, Dataset(), "RIS")
    assert caught.value.status is Status.PERFORMER_DECLINES
    assert ward.states() == ["SCHEDULED"]


def test_inputs_are_listed_by_series(ward: Ward) -> None:
    """Without our own results."""
    with ward.sessions.begin() as session:
        study = rows.study(session)
        images = rows.series(session, study)
        for _ in range(2):
            rows.instance(session, images)
        rows.instance(session, rows.series(session, study, own_result=True, modality="SR"))
    ward.follow()
    (item,) = ward.task().InputInformationSequence
    assert item.StudyInstanceUID == study.study_uid
    assert len(item.ReferencedSOPSequence) == 2


def test_finished_tasks_and_those_of_removed_studies_go(ward: Ward) -> None:
    """At the age of the record; an open task of a study that is here stays."""
    read, open_, gone = (ward.study() for _ in range(3))
    ward.follow()
    ward.read(read, ReadingState.READ)
    with ward.sessions.begin() as session:
        session.execute(sa.delete(Study).where(Study.id == gone))
    with ward.sessions.begin() as session:
        assert queries.purge(session, rows.NOW + dt.timedelta(days=1)) == 2
    assert ward.states() == ["SCHEDULED"]
    assert ward.reading_state(open_) == "unread"
