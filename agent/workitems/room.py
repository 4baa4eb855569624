"""Workitems, wired: the services on our port, and sweeps that follow studies and bring events."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import structlog
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from agent.clock import Clock
from agent.delivery.channels.dicom import tls_context
from agent.foundation import Foundation
from agent.schedule import Sweep
from agent.workitems import following
from agent.workitems.service import Workitems
from db.engine import reading
from db.models import WorkitemEvent
from db.queries import workitems as rows
from dicom_nodes.errors import NodeError
from dicom_nodes.node import Node
from dicom_nodes.scp import ups as scp
from dicom_nodes.scp.dispatch import Service
from dicom_nodes.scu import ups as scu

log = structlog.get_logger(__name__)

FOLLOW_S, EVENTS_S = 5.0, 1.0
_BATCH = 200
RETRY = dt.timedelta(seconds=30)


class ReadingTasks:
    """What an agent needs to be a manager of workitems."""

    def __init__(self, base: Foundation) -> None:
        self._base = base
        self._nodes = _nodes(base)
        self.workitems = manager(base)

    def services(self) -> list[Service]:
        """UPS Push, Pull, Watch and Query."""
        return [scp.service(self.workitems, self._nodes.__contains__)]

    def sweeps(self) -> list[Sweep]:
        """Follow, tell, forget."""
        base = self._base
        every = base.config.schedule.retention_s
        return [
            Sweep("workitems", FOLLOW_S, self.follow),
            Sweep("workitem events", EVENTS_S, self.tell),
            Sweep("workitem retention", every, self._forget),
        ]

    def follow(self) -> int:
        """Bring reading tasks to what studies say."""
        base = self._base
        return following.catch_up(base.sessions, base.config.priority, base.clock())

    def tell(self) -> int:
        """Bring due events to those who take them by DIMSE."""
        return bring(self._base.sessions, self._nodes, self._base.clock)

    def _forget(self) -> None:
        config, now = self._base.config, self._base.clock()
        minutes = dt.timedelta(minutes=config.ups.keep_events_minutes)
        with self._base.sessions.begin() as session:
            rows.forget_events(session, now - minutes)
            rows.purge(session, now - dt.timedelta(days=config.storage.retention_days))


def manager(base: Foundation) -> Workitems:
    """The manager of the workitems; it holds nothing but the way to the record."""
    config = base.config
    return Workitems(base.sessions, config.ups, config.priority, config.destinations, base.clock)


def bring(sessions: sessionmaker[Session], nodes: Mapping[str, Node], clock: Clock) -> int:
    """Bring due events to these subscribers, in order; returns how many were taken."""
    if not nodes:
        return 0
    with reading(sessions) as session:
        due = rows.due_events(session, list(nodes), clock(), _BATCH)
    by_receiver: dict[str, list[WorkitemEvent]] = {}
    for event in due:
        by_receiver.setdefault(event.ae_title, []).append(event)
    taken = 0
    for ae_title, events in by_receiver.items():
        taken += _bring_to(sessions, nodes[ae_title], events, clock)
    return taken


def _bring_to(
    sessions: sessionmaker[Session], node: Node, events: list[WorkitemEvent], clock: Clock
) -> int:
    told = [(event.workitem_uid, event.type, Dataset.from_json(event.content)) for event in events]
    taken = 0
    try:
        taken = scu.report(node, told)
    except NodeError as error:
        log.warning("workitem_event_not_told", why=str(error))
    with sessions.begin() as session:
        rows.told(session, [event.id for event in events[:taken]])
        if taken < len(events):
            rows.later(session, events[0].ae_title, clock() + RETRY)
    return taken


def _nodes(base: Foundation) -> dict[str, Node]:
    """Certificates are read at start; a renewed one needs a restart."""
    return {
        peer.ae_title: Node(
            ae_title=peer.ae_title,
            host=peer.host,
            port=peer.port,
            calling_ae=base.config.dicom.ae_title,
            tls=tls_context(peer.tls),
            timeout_s=peer.timeout_s,
        )
        for peer in base.config.ups.subscribers
    }
