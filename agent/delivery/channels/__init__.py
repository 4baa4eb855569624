"""Channels: how a kind of destination is spoken to. A new one: copy the nearest, register it.

`Channel` sends result objects (copy `dicom.py`); `MessageChannel` tells of a study (copy `hl7.py`,
see `agent.delivery.announcements`).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol, runtime_checkable

from agent.delivery.announcements import Announcement
from dicom_nodes.answers import HeldStudy


@runtime_checkable
class Channel(Protocol):
    """What every kind of destination can do; all of it may be repeated without harm."""

    def send(self, path: Path) -> None:
        """Return when the destination holds the instance in this file.

        Raises:
            NodeError: it does not; `permanent` says whether asking again can help.
        """

    def held_study(self, study_uid: str) -> HeldStudy | None:
        """Under whose identity the destination holds the study; None = it does not hold it.

        Raises:
            NodeError: it could not be asked.
        """

    def count_instances(self, study_uid: str, exclude_series: Collection[str] = ()) -> int | None:
        """How many instances of the study it holds, the given series not counted; None = unknown.

        Raises:
            NodeError: it could not be asked.
        """

    def check(self) -> None:
        """Return when the destination answers us.

        Raises:
            NodeError: it does not; the message says what to mend.
        """


@runtime_checkable
class MessageChannel(Protocol):
    """What every kind of destination can do that is told, not sent objects."""

    def announce(self, announcement: Announcement) -> None:
        """Return when the destination took the message; repeatable, with the same control id.

        Raises:
            NodeError, DeliveryError: it did not; `permanent` says whether asking again can help.
        """

    def preview(self, announcement: Announcement) -> str:
        """What `announce` would send, one printable text; touches no network.

        Raises:
            DeliveryError: the announcement cannot be said in this channel's words.
        """

    def check(self) -> None:
        """Return when the destination answers us; must not tell it anything.

        Raises:
            NodeError: it does not; the message says what to mend.
        """
