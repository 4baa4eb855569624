"""What the storage SCP hands to its handler, and what the handler must answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of an association."""

    calling_ae: str
    called_ae: str
    address: str


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE-RQ whose dataset has not been read yet."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    peer: Peer


@dataclass(frozen=True)
class ReceivedInstance:
    """A whole instance: Part-10 file with our file meta and the dataset's bytes as received.

    Attributes:
        request: the C-STORE command's values.
        path: temporary file in `StoreHandler.incoming`; written and closed, not yet fsync'd.
        size_bytes: size of that file.
        head: first bytes of the dataset (at most 64 KiB), for the header scan.
        dataset_offset: where the dataset begins in the file.
    """

    request: StoreRequest
    path: Path
    size_bytes: int
    head: bytes
    dataset_offset: int


class StoreHandler(Protocol):
    """Implemented by the application; called from association threads, several at a time."""

    @property
    def incoming(self) -> Path:
        """Directory for temporary files, on the same file system as their final place."""

    def admit(self, request: StoreRequest) -> int:
        """Before the dataset is read: 0x0000 to go on, else the failure status to answer."""

    def store(self, instance: ReceivedInstance) -> int:
        """Make it durable and indexed, return the DIMSE status; takes over or removes `path`."""

    def association_opened(self, peer: Peer) -> None:
        """A peer was accepted."""

    def association_closed(self, peer: Peer, *, aborted: bool) -> None:
        """A peer released, aborted or vanished."""
