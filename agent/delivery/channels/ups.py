"""Worklist managers that take workitems, by DIMSE and by UPS-RS."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from agent.delivery.announcements import Announcement
from agent.delivery.channels import http_peer, ups_messages
from agent.delivery.channels.dicom import tls_context
from agent.settings import Destination
from dicom_nodes.node import Node
from dicom_nodes.scu import echo
from dicom_nodes.scu import ups as scu
from dicom_nodes.web import ups as rs

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class UpsChannel:
    """Speaks to one ``kind = "ups"`` destination: N-CREATE, N-SET, N-ACTION."""

    destination: Destination
    calling_ae: str

    def announce(self, announcement: Announcement) -> None:
        """Create the reading task or change it; the one that it replaces is canceled first."""
        task = ups_messages.task(announcement, self.destination.ups)
        node = self._node()
        if task.replaces:
            scu.cancel(node, task.replaces, ups_messages.SUPERSEDED)
        if not scu.schedule(node, task.uid, task.whole, task.changes):
            log.info("workitem_taken_already", kind=announcement.kind)

    def preview(self, announcement: Announcement) -> str:
        """The workitem as it would be created."""
        return ups_messages.text(ups_messages.task(announcement, self.destination.ups))

    def check(self) -> None:
        """C-ECHO."""
        echo.echo(self._node())

    def _node(self) -> Node:
        return Node(
            ae_title=self.destination.ae_title or "",
            host=self.destination.host,
            port=self.destination.port,
            calling_ae=self.calling_ae,
            tls=tls_context(self.destination.tls),
            timeout_s=self.destination.timeout_s,
        )


@dataclass(frozen=True)
class UpsRsChannel:
    """Speaks to one ``kind = "ups-rs"`` destination (PS3.18 section 11)."""

    destination: Destination

    def announce(self, announcement: Announcement) -> None:
        """Create the reading task or change it; the one that it replaces is canceled first."""
        settings = self.destination.ups
        task = ups_messages.task(announcement, settings)
        peer = http_peer.of(self.destination)
        if task.replaces:
            rs.cancel(peer, task.replaces, settings.requester_ae, ups_messages.SUPERSEDED)
        if not rs.schedule(peer, task.uid, task.whole, task.changes):
            log.info("workitem_taken_already", kind=announcement.kind)

    def preview(self, announcement: Announcement) -> str:
        """The workitem as it would be created."""
        return ups_messages.text(ups_messages.task(announcement, self.destination.ups))

    def check(self) -> None:
        """A search."""
        rs.check(http_peer.of(self.destination))
