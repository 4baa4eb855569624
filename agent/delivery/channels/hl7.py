"""An HL7 v2 receiver (engine, RIS) over MLLP: priority updates and preliminary reports."""

from __future__ import annotations

from dataclasses import dataclass

from agent.delivery.announcements import Announcement
from agent.errors import DeliveryError
from agent.settings import Destination


@dataclass(frozen=True)
class Hl7Channel:
    """Speaks to one ``kind = "hl7"`` destination."""

    destination: Destination

    def announce(self, announcement: Announcement) -> None:
        """Send one message and wait for its acknowledgement."""
        raise DeliveryError(self.preview(announcement), permanent=False)

    def preview(self, announcement: Announcement) -> str:
        """The message, a segment a line."""
        raise DeliveryError(f"{self.destination.name}: nothing to say yet", permanent=True)

    def check(self) -> None:
        """Connect and hang up."""
