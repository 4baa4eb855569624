"""The outbox's worker: claim a row, look at identity once more, send it, record what happened."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import faults, leases, retry
from agent.clock import Clock, utc_now
from agent.delivery import announcements, identity, marks
from agent.delivery.announcements import Announcement
from agent.delivery.channels import Channel, MessageChannel
from agent.delivery.identity import Identity
from agent.delivery.outbox import WHO
from agent.delivery.registry import Route
from agent.errors import DeliveryError
from agent.retry import GiveUp, RetryAt
from agent.settings import DeliverySettings
from db.engine import reading
from db.models import Delivery, Study
from db.queries import delivery_claims, outbox, studies
from db.queries.delivery_claims import ClaimedDelivery
from db.states import DeliveryState
from dicom_nodes.errors import PeerUnavailable

log = structlog.get_logger(__name__)

#: Told (destination, kind of object, outcome: sent | delivered | retry | dead | shadow).
Observe = Callable[[str, str, str], None]

#: Pause of a worker thread after the database itself failed.
TROUBLE_PAUSE_S = 5.0


class Outbox:
    """Sends what is due; any number of them may work on one database.

    Args:
        sessions: of the record.
        routes: destination name -> how to reach it (`registry.routes`).
        settings: workers, backoff, age of a dead letter, lease.
        results_dir: what `Result.path` is relative to.
        clock: now, in UTC.
        owner: names this node in leases; give `release_all_of` the same at start.
        observe: told of every outcome, for metrics.
        poll_s: how often idle threads look; `wake` makes them look at once.
        unsupported: tell message channels, too, what the guard found unsupported.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        routes: Mapping[str, Route],
        settings: DeliverySettings,
        results_dir: Path,
        *,
        clock: Clock = utc_now,
        owner: str = "outbox",
        observe: Observe = lambda _destination, _kind, _outcome: None,
        poll_s: float = 1.0,
        unsupported: bool = False,
    ) -> None:
        self._sessions = sessions
        self._routes = dict(routes)
        self._settings = settings
        self._lease = dt.timedelta(seconds=settings.lease_s)
        self._results_dir = results_dir
        self._clock = clock
        self._owner = owner
        self._observe = observe
        self._poll_s = poll_s
        self._unsupported = unsupported
        self._stop = threading.Event()
        self._work = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def alive(self) -> bool:
        """Whether every worker thread runs."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Free what an earlier life of this node held, then start the worker threads."""
        with self._sessions.begin() as session:
            delivery_claims.release_all_of(session, self._owner, self._clock())
        for number in range(self._settings.workers):
            name = f"{self._owner}-{number}"
            thread = threading.Thread(target=self._loop, args=(name,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wake(self) -> None:
        """Something was enqueued: look now, not at the next poll."""
        self._work.set()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Finish the rows in hand (up to `timeout_s`), then end the threads."""
        self._stop.set()
        self._work.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def run_once(self, owner: str | None = None) -> int:
        """Deal with everything that is due now; returns how many rows."""
        count = 0
        while not self._stop.is_set():
            claimed = self._claim(owner or self._owner)
            if claimed is None:
                break
            self._deal_with(claimed)
            count += 1
        return count

    def _claim(self, owner: str) -> ClaimedDelivery | None:
        with self._sessions.begin() as session:
            return delivery_claims.claim(session, owner=owner, lease=self._lease, now=self._clock())

    def _deal_with(self, claimed: ClaimedDelivery) -> None:
        with structlog.contextvars.bound_contextvars(
            study=claimed.study_key,
            delivery=claimed.id,
            destination=claimed.destination,
            kind=claimed.kind,
        ):
            route = self._routes.get(claimed.destination)
            if route is not None and route.shadow:
                self._record(claimed, _in_shadow)
                self._tell(claimed, "shadow")
                return
            try:
                with leases.kept(lambda: self._renew(claimed), self._lease, claimed.study_key):
                    self._send(claimed, route)
            except Exception as error:  # noqa: BLE001  the edge: recorded, then decided by policy
                self._failed(claimed, error)
            else:
                self._succeeded(claimed, route)

    def _succeeded(self, claimed: ClaimedDelivery, route: Route | None) -> None:
        """An object of which proof is wanted is sent, not delivered: `proof` goes on with it."""
        is_object = claimed.kind not in announcements.KINDS
        if is_object and route is not None and route.proof is not None:
            if self._record(claimed, marks.sent):
                log.info("result_sent", attempts=claimed.attempts)
                self._tell(claimed, "sent")
        elif self._record(claimed, marks.delivered):
            log.info("result_delivered", attempts=claimed.attempts)
            self._tell(claimed, "delivered")

    def _send(self, claimed: ClaimedDelivery, route: Route | None) -> None:
        if route is None:
            raise DeliveryError(
                f"destination {claimed.destination} is not configured any more; "
                "add it again and retry the delivery",
                permanent=True,
            )
        if claimed.kind in announcements.KINDS:
            self._announce(claimed, route.channel)
            return
        if not isinstance(route.channel, Channel):
            raise _wrong_kind(claimed)
        path = self._results_dir / claimed.path
        result = identity.of_file(path, claimed.subject)
        identity.check_record(result, _record_identity(claimed))
        if route.check_identity:
            held = route.channel.held_study(result.study_uid)
            if held is not None:
                identity.check_held(result, held, claimed.destination)
        route.channel.send(path)

    def _announce(self, claimed: ClaimedDelivery, channel: Channel | MessageChannel) -> None:
        if not isinstance(channel, MessageChannel):
            raise _wrong_kind(claimed)
        announcement = self._announcement(claimed)
        identity.check_record(announcement.identity, announcement.study.identity)
        channel.announce(announcement)

    def _announcement(self, claimed: ClaimedDelivery) -> Announcement:
        with reading(self._sessions) as session:
            row = session.get_one(Delivery, claimed.id)
            return announcements.build(session, row, unsupported=self._unsupported)

    def _failed(self, claimed: ClaimedDelivery, error: Exception) -> None:
        now = self._clock()
        decision = retry.decide(
            error,
            attempts=claimed.attempts,
            age=now - claimed.created_at,
            now=now,
            settings=self._settings,
        )
        why = faults.describe(error)
        if isinstance(decision, GiveUp):
            reason = f"{why} ({decision.reason})"
            if self._record(claimed, lambda *row: marks.dead(*row, why=reason)):
                # the alarm: a person has to look, see docs/operate
                log.error("delivery_dead", attempts=claimed.attempts, why=reason)
                self._tell(claimed, "dead")
            return
        unreachable = isinstance(error, PeerUnavailable)
        if self._record(
            claimed, lambda *row: _later(*row, why=why, again=decision, unreachable=unreachable)
        ):
            log.warning("delivery_failed", attempts=claimed.attempts, why=why)
            self._tell(claimed, "retry")

    def _renew(self, claimed: ClaimedDelivery) -> bool:
        with self._sessions.begin() as session:
            return delivery_claims.renew(session, claimed, lease=self._lease, now=self._clock())

    def _record(self, claimed: ClaimedDelivery, change: Callable[..., None]) -> bool:
        """Apply a change to the row and settle its study, in one transaction.

        False when the lease was lost: somebody else sends the row now, and will record it.
        """
        now = self._clock()
        with self._sessions.begin() as session:
            study = outbox.locked_study(session, claimed.study_id)
            row = delivery_claims.owned(session, claimed)
            if row is None:
                log.warning("delivery_lease_lost", attempts=claimed.attempts)
                return False
            row.lease_owner = row.lease_until = None
            change(session, study, row, now)
            outbox.settle(session, study, who=WHO, now=now)
        return True

    def _tell(self, claimed: ClaimedDelivery, outcome: str) -> None:
        self._observe(claimed.destination, claimed.kind, outcome)

    def _loop(self, owner: str) -> None:
        while not self._stop.is_set():
            self._work.clear()
            try:
                self.run_once(owner)
            except Exception as error:  # noqa: BLE001  e.g. the database is away: wait, go on
                log.error("outbox_failed", why=faults.describe(error))
                self._stop.wait(TROUBLE_PAUSE_S)
            self._work.wait(self._poll_s)


def _in_shadow(session: Session, study: Study, row: Delivery, now: dt.datetime) -> None:
    row.state = DeliveryState.SHADOW
    why = f"{row.kind} to {row.destination}: shadow mode was switched on"
    studies.note(session, study.id, who=WHO, kind="delivery_withheld", why=why, now=now)


def _later(
    session: Session,
    study: Study,
    row: Delivery,
    now: dt.datetime,
    *,
    why: str,
    again: RetryAt,
    unreachable: bool,
) -> None:
    if row.attempts == 1:  # the timeline tells that it began; the row counts the rest
        note = f"{row.kind} to {row.destination}: {why}; retry follows"
        studies.note(session, study.id, who=WHO, kind="delivery_failed", why=note, now=now)
    row.state = DeliveryState.PENDING
    row.next_attempt_at = again.at
    row.last_error = why
    if unreachable:
        delivery_claims.defer(session, row.destination, again.at)


def _wrong_kind(claimed: ClaimedDelivery) -> DeliveryError:
    return DeliveryError(
        f"destination {claimed.destination} is of another kind than when this {claimed.kind} was "
        "put in; configure the old kind under this name again, or leave the delivery dead",
        permanent=True,
    )


def _record_identity(claimed: ClaimedDelivery) -> Identity:
    return Identity(
        study_uid=claimed.study_uid,
        patient_id=identity.clean(claimed.patient_id),
        issuer_of_patient_id=identity.clean(claimed.issuer_of_patient_id),
        accession_number=identity.clean(claimed.accession_number),
    )
