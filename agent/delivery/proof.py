"""Proof of arrival: what a destination took is delivered only when it was committed and read back.

A pass of its own over `sent` rows, per destination and batched by study, so that neither a slow
archive nor a late report of commitment holds up the push of anything.
"""

from __future__ import annotations

import datetime as dt
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import faults, retry
from agent.clock import Clock, utc_now
from agent.delivery import identity, marks
from agent.delivery.channels.archive import Commits, ReadsBack
from agent.delivery.commitments import Commitments
from agent.delivery.outbox import WHO
from agent.delivery.registry import Proof as Terms
from agent.delivery.registry import Route
from agent.errors import DeliveryError, IdentityChanged
from agent.retry import GiveUp
from agent.settings import DeliverySettings
from db.engine import reading
from db.models import Delivery, Study
from db.queries import outbox, proof, studies
from db.queries.proof import Unproven
from db.states import DeliveryState
from dicom_nodes.commitment import Reference, Request
from dicom_nodes.errors import PeerUnavailable

log = structlog.get_logger(__name__)

#: A pass begins no further study after so long: the rest is due at the next, the most urgent study
#: first again, and an agent that stops waits for one study only.
PASS_S = 10.0

#: Told (destination, kind of object, outcome: delivered | missing | dead | mismatch).
Observe = Callable[[str, str, str], None]
#: What is written on one row; told the study, the locked row and now.
Mark = Callable[[Session, Study, Delivery, dt.datetime], None]


class Prover:
    """Asks destinations about what they took; any number of agents may, on one database.

    Args:
        sessions: of the record.
        routes: destination name -> how to reach it and what must be proven (`registry.routes`).
        settings: backoff, and the age at which we give up.
        results_dir: what `Result.path` is relative to.
        commitments: takes reports that come at once.
        clock: now, in UTC.
        observe: told of every outcome, for metrics.
        spread: source of jitter, uniform in [0, 1).
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        routes: Mapping[str, Route],
        settings: DeliverySettings,
        results_dir: Path,
        commitments: Commitments,
        *,
        clock: Clock = utc_now,
        observe: Observe = lambda _destination, _kind, _outcome: None,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._sessions = sessions
        self._routes = dict(routes)
        self._settings = settings
        self._results_dir = results_dir
        self._commitments = commitments
        self._clock = clock
        self._observe = observe
        self._spread = spread

    def run_once(self, destination: str) -> int:
        """Ask about everything that is due at one destination; returns how many rows moved on."""
        route = self._routes[destination]
        with reading(self._sessions) as session:
            rows = proof.due(session, destination, self._clock())
        groups: dict[int, list[Unproven]] = {}
        for row in rows:
            groups.setdefault(row.study_id, []).append(row)
        moved, until = 0, time.monotonic() + PASS_S
        for group in groups.values():
            if time.monotonic() > until:
                break
            with structlog.contextvars.bound_contextvars(
                study=group[0].study_key, destination=destination
            ):
                try:
                    moved += self._prove(destination, route, group)
                except PeerUnavailable as error:
                    self._failed(destination, group, error)
                    return moved
                except Exception as error:  # noqa: BLE001  the edge: recorded, decided by policy
                    self._failed(destination, group, error)
        return moved

    def give_up_unknown(self) -> None:
        """What was sent to a destination that is not configured any more cannot be proven."""
        with reading(self._sessions) as session:
            names = proof.destinations(session)
            lost = {
                name: proof.due(session, name, self._clock())
                for name in names
                if name not in self._routes
            }
        for name, rows in lost.items():
            error = DeliveryError(
                f"destination {name} is not configured any more; "
                "add it again and retry the delivery",
                permanent=True,
            )
            for row in rows:
                self._failed(name, [row], error)

    def _prove(self, destination: str, route: Route, group: Sequence[Unproven]) -> int:
        terms = route.proof or Terms(read_back=False)
        to_commit = [row for row in group if row.state is DeliveryState.SENT and terms.commitment]
        if to_commit:
            self._ask_commitment(destination, route, terms, to_commit)
        to_see = [row for row in group if row not in to_commit]
        if not to_see:
            return 0
        if not terms.read_back:
            return self._mark(to_see, lambda *row: marks.arrived(*row, seen=False), "delivered")
        return self._read_back(destination, route, terms, to_see)

    def _ask_commitment(
        self, destination: str, route: Route, terms: Terms, rows: Sequence[Unproven]
    ) -> None:
        if not isinstance(route.channel, Commits):
            raise DeliveryError(
                f"destination {destination} cannot be asked for storage commitment; "
                "set commitment = false for it and retry the delivery",
                permanent=True,
            )
        if self._is_over(rows[0]):
            raise DeliveryError(
                f"{destination} reported no storage commitment; see its log, and that it knows "
                "our node's address, or set commitment = false",
                permanent=False,
            )
        uid = f"2.25.{uuid.uuid4().int}"
        references = tuple(Reference(row.sop_class_uid, row.sop_uid) for row in rows)
        self._commitments.asked(uid, destination, references)
        again = self._clock() + dt.timedelta(seconds=terms.commitment_timeout_s)
        why = "storage commitment is not reported yet"
        self._mark(rows, lambda _s, _t, row, _n: marks.asked_again(row, again, why))
        report = route.channel.ask_commitment(Request(uid, references))
        log.info("commitment_asked", objects=len(rows))
        if report is not None:
            self._commitments.take(report)

    def _read_back(
        self, destination: str, route: Route, terms: Terms, rows: Sequence[Unproven]
    ) -> int:
        if not isinstance(route.channel, ReadsBack):
            raise DeliveryError(
                f"destination {destination} cannot be asked what it holds; "
                "set read_back = false for it and retry the delivery",
                permanent=True,
            )
        series = sorted({row.series_uid for row in rows})
        held = route.channel.held_objects(rows[0].study_uid, series)
        seen: list[Unproven] = []
        missing: list[Unproven] = []
        for row in rows:
            try:
                result = identity.of_file(self._results_dir / row.path, row.sop_uid)
                there = identity.is_there(result, row.sop_uid, held, destination)
            except IdentityChanged as error:
                self._mismatch(destination, row, str(error))
                return 0
            except (
                DeliveryError
            ) as error:  # its file is gone: the others are looked at all the same
                self._failed(destination, [row], error)
                continue
            (seen if there else missing).append(row)
        moved = self._mark(seen, lambda *row: marks.arrived(*row, seen=True), "delivered")
        for row in missing:
            self._missing(destination, terms, row)
        return moved

    def _missing(self, destination: str, terms: Terms, row: Unproven) -> None:
        """Archives index later than they answer: asked again for a while, then sent again."""
        now = self._clock()
        why = f"{destination} does not show the object it took"
        if (now - row.sent_at).total_seconds() < terms.read_back_timeout_s:
            wait_s = retry.delay_s(row.proof_attempts + 1, self._settings, self._spread())
            at = now + dt.timedelta(seconds=wait_s)
            self._mark([row], lambda _s, _t, line, _n: marks.asked_again(line, at, why))
            return
        self._commitments.send_again(row.id, row.study_id, why)
        self._observe(destination, row.kind, "missing")

    def _mismatch(self, destination: str, row: Unproven, why: str) -> None:
        """The study was merged or corrected there: nothing more of it is pushed, with alarm."""
        now = self._clock()
        with self._sessions.begin() as session:
            study = outbox.locked_study(session, row.study_id)
            studies.note(session, study.id, who=WHO, kind="delivery_mismatch", why=why, now=now)
            stopped = proof.open_of(session, study.id, destination)
            for line in stopped:
                marks.dead(session, study, line, now, why=why)
            outbox.settle(session, study, who=WHO, now=now)
        log.error("delivery_mismatch", objects=len(stopped), why=why)
        self._observe(destination, row.kind, "mismatch")

    def _failed(self, destination: str, rows: Sequence[Unproven], error: Exception) -> None:
        """The question itself failed: repeated with backoff, given up when its time is over."""
        now, why, first = self._clock(), faults.describe(error), rows[0]
        decision = retry.decide(
            error,
            attempts=first.proof_attempts + 1,
            age=now - first.sent_at,
            now=now,
            settings=self._settings,
            spread=self._spread,
        )
        if isinstance(decision, GiveUp):
            permanent = getattr(error, "permanent", False)
            limit = (
                "refused for good"
                if permanent
                else (f"not proven within {self._settings.dead_after_hours:g} h")
            )
            reason = f"sent, but its arrival could not be proven: {why} ({limit})"
            self._mark(rows, lambda *row: marks.dead(*row, why=reason), "dead")
            log.error("delivery_dead", why=reason)
            return
        at = decision.at
        self._mark(rows, lambda _s, _t, row, _n: marks.asked_again(row, at, why))
        log.warning("delivery_not_proven", attempts=first.proof_attempts + 1, why=why)
        if isinstance(error, PeerUnavailable):
            with self._sessions.begin() as session:
                proof.defer(session, destination, at)

    def _mark(self, rows: Sequence[Unproven], mark: Mark, outcome: str = "") -> int:
        """Write on those rows that are still as they were read, and settle their study."""
        if not rows:
            return 0
        now = self._clock()
        with self._sessions.begin() as session:
            study = outbox.locked_study(session, rows[0].study_id)
            lines = proof.still(session, rows)
            for line in lines.values():
                mark(session, study, line, now)
            outbox.settle(session, study, who=WHO, now=now)
            told = [(line.destination, line.kind) for line in lines.values()]
        for destination, kind in told if outcome else ():
            self._observe(destination, kind, outcome)
        return len(told)

    def _is_over(self, row: Unproven) -> bool:
        limit = dt.timedelta(hours=self._settings.dead_after_hours)
        return self._clock() - row.sent_at >= limit
