"""The operations on workitems, the same for DIMSE and for HTTP (PS3.4 annex CC, PS3.18 11)."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from pydicom.dataset import Dataset
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from agent.clock import Clock, utc_now
from agent.orders import prioritizing
from agent.orders.prioritizing import Policy
from agent.settings import Destination, Level, PrioritySettings, UpsSettings
from agent.web import feedback
from agent.workitems import content, events, following, rules
from db.engine import reading
from db.models import Study, Workitem, WorkitemSubscription
from db.queries import workitems as rows
from db.states import ReadingState
from dicom_nodes.scp import matching
from dicom_nodes.ups import WELL_KNOWN, Refused, State, Status

log = structlog.get_logger(__name__)

MAX_UID = 64
#: State reports that a new subscriber to all workitems gets, the most urgent first.
MAX_FIRST_REPORTS = 1_000
#: Tags and the columns that narrow a search down before it is matched.
_COLUMNS = {
    "ProcedureStepState": "state",
    "ScheduledProcedureStepPriority": "priority",
    "StudyInstanceUID": "study_uid",
    "SOPInstanceUID": "uid",
    "PatientID": "patient_id",
}
_READING = {
    State.IN_PROGRESS: ReadingState.READING,
    State.COMPLETED: ReadingState.READ,
    State.CANCELED: ReadingState.UNREAD,
}
_ORDERED = {"HIGH": "HIGH", "MEDIUM": "MEDIUM", "LOW": "ROUTINE"}


@dataclass(frozen=True)
class Workitems:
    """The manager of the workitems; every operation is one transaction.

    All raise `Refused` where the standard has a status for it.
    """

    sessions: sessionmaker[Session]
    settings: UpsSettings = field(default_factory=UpsSettings)
    policy: PrioritySettings = field(default_factory=PrioritySettings)
    destinations: Sequence[Destination] = ()
    clock: Clock = utc_now

    def create(self, uid: str, ds: Dataset, who: str) -> str:
        """Keep a workitem of another system; returns its UID (ours, where none was given)."""
        if not self.settings.accept_created:
            raise Refused(Status.NOT_AUTHORIZED)
        rules.check_new(ds)
        uid, now = _checked(uid or f"2.25.{uuid.uuid4().int}"), self.clock()
        row = Workitem(
            uid=uid,
            study_uid=_study_of(ds)[:128],
            state=State.SCHEDULED.value,
            rank=content.LEVELS[str(ds.ScheduledProcedureStepPriority)].rank,
            created_at=now,
            changed_at=now,
        )
        ds.ScheduledProcedureStepModificationDateTime = content.moment(now)
        content.write(row, ds)
        try:
            with self.sessions.begin() as session:
                if rows.find(session, uid) is not None:
                    raise Refused(Status.DUPLICATE)
                rows.add(session, row)
                events.report_state(session, row, now)
        except IntegrityError:  # the same UID on two associations: the other one was first
            raise Refused(Status.DUPLICATE) from None
        log.info("workitem_created", calling_ae=who)
        return uid

    def retrieve(self, uid: str) -> Dataset:
        """All attributes but the Transaction UID; a reading task's inputs are listed."""
        with reading(self.sessions) as session:
            row = rows.find(session, uid)
            if row is None:
                raise Refused(Status.UNKNOWN_WORKITEM)
            ds = content.read(row)
            if row.own:
                found = rows.instances(session, row.study_uid)
                ae = self.settings.retrieve_ae_title
                ds.InputInformationSequence = content.inputs(found, row.study_uid, ae)
        return ds

    def search(self, keys: Dataset) -> Iterator[Dataset]:
        """Workitems that match, in reading order.

        Raises:
            MatchingError: a key breaks the rules of its value representation.
        """
        with reading(self.sessions) as session:
            for row in rows.in_order(session, values=_narrowed(keys)):
                ds = content.read(row)
                if matching.matches(keys, ds):
                    yield ds

    def update(self, uid: str, changes: Dataset) -> Status:
        """N-SET; a changed priority of a reading task is taken as an order's."""
        now = self.clock()
        with self._changing(uid) as (session, row, study):
            rules.check_update(State(row.state), row.transaction_uid, changes)
            wanted = str(changes.get("ScheduledProcedureStepPriority") or "")
            held = content.read(row)
            news = {e.tag for e in changes if held.get(e.tag) != e}
            held.update(changes)
            held.ScheduledProcedureStepModificationDateTime = content.moment(now)
            content.write(row, held)
            row.changed_at = now
            if study is not None:
                return self._ordered(session, study, row, wanted, now)
            if wanted:
                row.rank = content.LEVELS[wanted].rank
            self._tell(session, row, changes, bool(news), now)
        return Status.SUCCESS

    def change_state(self, uid: str, wanted: str, transaction_uid: str, who: str) -> Status:
        """Claim (IN PROGRESS), complete or cancel; the study's reading state goes along."""
        try:
            state = State(wanted)
        except ValueError:
            raise Refused(Status.INVALID_VALUE, "ProcedureStepState") from None
        now = self.clock()
        with self._changing(uid) as (session, row, study):
            status = rules.change(State(row.state), state, row.transaction_uid, transaction_uid)
            if status is not Status.SUCCESS:
                return status
            if state is State.IN_PROGRESS:
                row.transaction_uid = _checked(transaction_uid)
            else:
                self._finish(row, state, now)
            following.set_state(session, row, state, now)
            if study is not None:
                to = _READING[state]
                feedback.set_reading_state(session, study, to, who=f"UPS {who}".strip(), now=now)
        log.info("workitem_changed", status=state.value, calling_ae=who)
        return Status.SUCCESS

    def request_cancel(self, uid: str, asked: Dataset, who: str) -> Status:
        """Cancel what nobody has begun; ask the performer of what is in progress.

        The reading task of a study lasts as long as the study is on the list: it is not canceled by
        request before somebody reads, for a study must not vanish from the list unread.
        """
        now = self.clock()
        with self._changing(uid) as (session, row, _study):
            state = State(row.state)
            if state is State.COMPLETED:
                raise Refused(Status.COMPLETED_ALREADY)
            if state is State.CANCELED:
                return Status.ALREADY_CANCELED
            if state is State.IN_PROGRESS:
                events.request_cancel(session, row, asked, who, now)
                return Status.SUCCESS
            if row.own:
                raise Refused(Status.PERFORMER_DECLINES, "the study is still to be read")
            ds = content.read(row)
            _keep_reason(ds, asked)
            following.finish(row, ds, State.CANCELED, now)
            content.write(row, ds)
            following.set_state(session, row, State.CANCELED, now)
        return Status.SUCCESS

    def subscribe(
        self,
        target: str,
        ae_title: str,
        *,
        deletion_lock: bool = False,
        keys: Dataset | None = None,
    ) -> Status:
        """Tell an application entity of a workitem, of all, or of those that match."""
        ae_title, now = _ae(ae_title), self.clock()
        with self.sessions.begin() as session:
            known = rows.subscribers(session)
            if ae_title not in known and len(known) >= self.settings.max_subscribers:
                raise Refused(Status.RESOURCE_LIMITATION, "no more subscribers")
            if target not in WELL_KNOWN and rows.find(session, target) is None:
                raise Refused(Status.UNKNOWN_WORKITEM)
            kept = rows.subscription(session, ae_title, target)
            new = kept is None or not kept.active
            if kept is None:
                kept = WorkitemSubscription(ae_title=ae_title, target=target, created_at=now)
                session.add(kept)
            kept.active, kept.up_to, kept.deletion_lock = True, None, deletion_lock
            kept.keys = keys.to_json() if keys is not None else ""
            session.flush()
            if new:
                self._first_reports(session, kept, now)
        log.info("workitems_subscribed", calling_ae=ae_title)
        return Status.SUCCESS

    def unsubscribe(self, target: str, ae_title: str) -> Status:
        """Undo it; of the global instance: undo all of this application entity."""
        ae_title, now = _ae(ae_title), self.clock()
        with self.sessions.begin() as session:
            if target in WELL_KNOWN:
                rows.unsubscribe_all(session, ae_title)
                return Status.SUCCESS
            if rows.find(session, target) is None:
                raise Refused(Status.UNKNOWN_WORKITEM)
            kept = rows.subscription(session, ae_title, target)
            if kept is None:  # left out of a global subscription
                kept = WorkitemSubscription(ae_title=ae_title, target=target, created_at=now)
                session.add(kept)
            kept.active, kept.deletion_lock = False, False
        return Status.SUCCESS

    def suspend(self, target: str, ae_title: str) -> Status:
        """No workitem from now on; those that there are stay subscribed to."""
        if target not in WELL_KNOWN:
            raise Refused(Status.INAPPROPRIATE_ACTION, "only global subscriptions are suspended")
        with self.sessions.begin() as session:
            kept = rows.subscription(session, _ae(ae_title), target)
            if kept is None:
                raise Refused(Status.UNKNOWN_RECEIVER, "it has not subscribed")
            kept.up_to = rows.last_id(session)
        return Status.SUCCESS

    @contextlib.contextmanager
    def _changing(self, uid: str) -> Iterator[tuple[Session, Workitem, Study | None]]:
        with self.sessions.begin() as session:
            row, study = rows.locked(session, uid)
            if row is None:
                raise Refused(Status.UNKNOWN_WORKITEM)
            yield session, row, study

    def _ordered(
        self, session: Session, study: Study, row: Workitem, wanted: str, now: dt.datetime
    ) -> Status:
        """A priority set from outside counts as ordered: it raises, and lowers no model."""
        if not wanted:
            events.report_state(session, row, now)
            return Status.SUCCESS
        study.ordered_priority = _ORDERED[wanted]
        policy = Policy(self.policy, self.destinations)
        prioritizing.again(session, study, policy, now, f"UPS {now.isoformat()}")
        following.follow(session, study, now, self.policy)
        same = content.PRIORITIES[list(Level)[row.rank]] == wanted
        return Status.SUCCESS if same else Status.COERCED

    def _finish(self, row: Workitem, state: State, now: dt.datetime) -> None:
        ds = content.read(row)
        if state is State.CANCELED or (self.settings.fill_performed and row.own):
            following.finish(row, ds, state, now)
        lacking = rules.lacks(ds, state)
        if lacking:
            raise Refused(Status.FINAL_STATE_NOT_MET, ", ".join(lacking))
        content.write(row, ds)

    def _tell(
        self, session: Session, row: Workitem, changes: Dataset, news: bool, now: dt.datetime
    ) -> None:
        if "ProcedureStepProgressInformationSequence" in changes:
            events.report_progress(session, row, now)
        elif news:
            events.report_state(session, row, now)

    def _first_reports(
        self, session: Session, subscription: WorkitemSubscription, now: dt.datetime
    ) -> None:
        """State reports of what is subscribed to; of all: of the first that are not finished."""
        if subscription.target not in WELL_KNOWN:
            row = rows.find(session, subscription.target)
            found = [row] if row is not None else []
        else:
            waiting = rows.in_order(session, values={"state": rows.UNFINISHED})
            found = list(itertools.islice(waiting, MAX_FIRST_REPORTS))
        for row in found:
            if subscription.ae_title in events.subscribers(session, row):
                events.first_report(session, row, subscription.ae_title, now)


def _narrowed(keys: Dataset) -> Mapping[str, Sequence[str]]:
    """Column -> values of those keys that are plain single values."""
    narrowed = {}
    for keyword, column in _COLUMNS.items():
        if keyword not in keys or matching.is_universal(keys[keyword]):
            continue
        value = keys[keyword].value
        values = [str(value)] if isinstance(value, str) else [str(one) for one in value]
        if not any(set("*?") & set(one) for one in values):
            narrowed[column] = [one.strip() for one in values]
    return narrowed


def _study_of(ds: Dataset) -> str:
    """The study a workitem is about, wherever it is said."""
    for keyword in ("ReferencedRequestSequence", "InputInformationSequence"):
        for item in ds.get(keyword) or []:
            if item.get("StudyInstanceUID"):
                return str(item.StudyInstanceUID)
    return str(ds.get("StudyInstanceUID") or "")


def _keep_reason(ds: Dataset, asked: Dataset) -> None:
    progress = list(ds.get("ProcedureStepProgressInformationSequence") or [Dataset()])
    for keyword in ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence"):
        if keyword in asked:
            setattr(progress[0], keyword, asked[keyword].value)
    ds.ProcedureStepProgressInformationSequence = progress


def _checked(uid: str) -> str:
    parts = uid.split(".")
    if (
        len(uid) > MAX_UID
        or len(parts) < 2
        or not all(p.isascii() and p.isdecimal() for p in parts)
    ):
        raise Refused(Status.INVALID_VALUE, "not a UID")
    return uid


def _ae(title: str) -> str:
    title = title.strip()
    if not title or len(title) > 16 or not title.isascii() or not title.isprintable():
        raise Refused(Status.UNKNOWN_RECEIVER, "not an AE title")
    return title
