"""The orders of the RIS as a part of the agent: listener, worklist query and housekeeping."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import structlog

from agent.foundation import Foundation
from agent.orders import joining, mwl
from agent.orders.prioritizing import Policy
from agent.orders.room import OrdersRoom
from agent.schedule import Sweep
from agent.settings_hl7 import Hl7Settings
from db.queries import hl7_messages, orders
from dicom_nodes import tls
from dicom_nodes.hl7.server import MllpServer, MllpSettings

log = structlog.get_logger(__name__)

DRAIN_S = 10.0


class OrdersService:
    """Made once from the foundation; does nothing where neither `[hl7]` nor `[mwl]` is enabled."""

    def __init__(self, base: Foundation, wake_outbox: Callable[[], None]) -> None:
        config = base.config
        self._base = base
        self._policy = Policy(config.priority, config.destinations)
        self._wake = wake_outbox
        self._room = OrdersRoom(base.sessions, config.hl7, self._policy, base.clock, wake_outbox)
        self._server: MllpServer | None = None
        if config.hl7.enabled:
            self._server = MllpServer(server_settings(config.hl7), self._room.handle, _tell)

    @property
    def port(self) -> int | None:
        """Where HL7 messages are taken; None when they are not."""
        return self._server.port if self._server else None

    def start(self) -> None:
        """Take up what an earlier life recorded, then listen.

        Raises:
            NodeConfigError: the address cannot be bound, or a certificate cannot be used.
        """
        if self._server:
            self._room.take_up()
            self._server.start()

    def stop(self) -> None:
        """Take no more, finish the messages in hand."""
        if self._server:
            self._server.stop(DRAIN_S)

    def sweeps(self) -> list[Sweep]:
        """What the schedule runs."""
        config = self._base.config
        found = []
        if config.hl7.enabled or config.mwl.enabled:
            found.append(Sweep("orders", config.hl7.join_s, self._join))
            every = config.schedule.retention_s
            found.append(Sweep("orders_retention", every, self._forget))
        if config.mwl.enabled:
            found.append(Sweep("worklist_query", config.mwl.every_s, self._worklist()))
        return found

    def _join(self) -> None:
        """Messages that were left, and studies that came after their order."""
        self._room.take_up()
        joined = joining.join_recent(self._base.sessions, self._policy, self._base.clock())
        if joined:
            self._wake()

    def _forget(self) -> None:
        before = self._base.clock() - dt.timedelta(days=self._base.config.hl7.keep_days)
        with self._base.sessions.begin() as session:
            hl7_messages.forget(session, before)
            orders.forget(session, before)

    def _worklist(self) -> mwl.MwlOrders:
        config = self._base.config
        return mwl.MwlOrders(
            sessions=self._base.sessions,
            settings=config.mwl,
            policy=self._policy,
            clock=self._base.clock,
            ask=mwl.asker(config.mwl, config.dicom.ae_title),
            wake_outbox=self._wake,
        )


def server_settings(hl7: Hl7Settings) -> MllpSettings:
    """The listener's settings from the configuration.

    Raises:
        NodeConfigError: the certificate cannot be used.
    """
    secure = None
    if hl7.tls.certificate and hl7.tls.key:
        secure = tls.server_context(hl7.tls.certificate, hl7.tls.key, hl7.tls.ca)
    return MllpSettings(
        host=hl7.host,
        port=hl7.port,
        max_message_bytes=hl7.max_message_kb * 1024,
        max_connections=hl7.max_connections,
        idle_timeout_s=hl7.idle_timeout_s,
        message_timeout_s=hl7.message_timeout_s,
        allowed_networks=hl7.allowed_networks,
        tls=secure,
    )


def _tell(why: str, peer: str) -> None:
    log.warning("hl7_connection_closed", peer=peer, why=why)
