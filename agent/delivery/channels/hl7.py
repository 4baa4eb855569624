"""An HL7 v2 receiver (engine, RIS) over MLLP: priority updates and preliminary reports."""

from __future__ import annotations

from dataclasses import dataclass

from agent.delivery.announcements import Announcement
from agent.delivery.channels import hl7_messages
from agent.settings import Destination, TlsSettings
from dicom_nodes import tls
from dicom_nodes.hl7 import acknowledgements, charsets, client
from dicom_nodes.hl7.client import Receiver


@dataclass(frozen=True)
class Hl7Channel:
    """Speaks to one ``kind = "hl7"`` destination."""

    destination: Destination

    def announce(self, announcement: Announcement) -> None:
        """Send one message and wait until it is acknowledged (AA or CA)."""
        settings = self.destination.hl7
        text = hl7_messages.text(announcement, settings)

        def taken(answer: bytes) -> bool:
            return acknowledgements.judge(
                answer, announcement.control_id, settings.on_error, settings.on_reject
            )

        client.send(self._receiver(), charsets.encode(text, settings.charset), taken)

    def preview(self, announcement: Announcement) -> str:
        """The message, a segment a line."""
        return hl7_messages.text(announcement, self.destination.hl7).replace("\r", "\n")

    def check(self) -> None:
        """Connect and hang up; there is no message that asks for nothing."""
        client.check(self._receiver())

    def _receiver(self) -> Receiver:
        """Certificates are read at each use, because they are renewed under us."""
        given = self.destination.tls
        context = None
        if given != TlsSettings():
            context = tls.client_context(given.ca, given.certificate, given.key)
        return Receiver(
            name=self.destination.name,
            host=self.destination.host,
            port=self.destination.port,
            tls=context,
            timeout_s=self.destination.timeout_s,
        )
