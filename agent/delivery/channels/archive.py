"""What channels of archives can prove, beyond taking objects; message channels have none of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, runtime_checkable

from dicom_nodes.answers import HeldObjects
from dicom_nodes.commitment import Report, Request


@runtime_checkable
class ReadsBack(Protocol):
    """Can be asked what it holds."""

    def held_objects(self, study_uid: str, series_uids: Collection[str]) -> HeldObjects:
        """Under whose identity it holds the study, and which instances of these series.

        Raises:
            NodeError: it could not be asked.
        """


@runtime_checkable
class Commits(Protocol):
    """Can be asked to commit itself to keep objects."""

    def ask_commitment(self, request: Request) -> Report | None:
        """Ask; the report when it comes at once, else None: it comes to our node later.

        Raises:
            NodeError: it did not take the question.
        """
