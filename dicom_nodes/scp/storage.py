"""One instance on its way from the wire to a temporary Part-10 file."""

from __future__ import annotations

import errno
import os
import struct
import uuid
from pathlib import Path

import structlog

from dicom_nodes import identifiers, statuses
from dicom_nodes.received import ReceivedInstance, StoreHandler, StoreRequest

log = structlog.get_logger(__name__)

SUFFIX = ".part"
"""Of temporary files; nothing that looks for DICOM files picks them up."""

_HEAD_BYTES = 1 << 16
_MAX_PIECES = 512  # os.writev takes at most 1024
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})


class Incoming:
    """A dataset being written as it arrives.

    Pieces stay views into the receive buffer until `flush`: only the kernel copies the bytes.
    """

    def __init__(self, directory: Path, request: StoreRequest) -> None:
        """Open the temporary file.

        Raises:
            OSError: the file cannot be made.
        """
        self.request = request
        self._path = directory / f"{uuid.uuid4().hex}{SUFFIX}"
        preamble = file_meta(request)
        self._offset = len(preamble)
        self._size = self._offset
        self._pieces: list[bytes | memoryview] = [preamble]
        self._head = bytearray()
        self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    @property
    def size_bytes(self) -> int:
        """Bytes taken so far, file meta included."""
        return self._size

    def add(self, piece: memoryview) -> None:
        """Take the next piece of the dataset; it must stay unchanged until `flush`.

        Raises:
            OSError: the disk is full, or worse.
        """
        missing = _HEAD_BYTES - len(self._head)
        if missing > 0:
            self._head += piece[:missing]
        self._size += len(piece)
        self._pieces.append(piece)
        if len(self._pieces) >= _MAX_PIECES:
            self.flush()

    def flush(self) -> None:
        """Hand the pieces to the kernel.

        Raises:
            OSError: the disk is full, or worse.
        """
        pieces = self._pieces
        if not pieces:
            return
        total = sum(map(len, pieces))
        written = os.writev(self._fd, pieces)
        if written < total:  # a nearly full disk takes a part and refuses the rest
            rest = memoryview(b"".join(pieces))[written:]
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        pieces.clear()

    def finish(self) -> ReceivedInstance:
        """Write the rest and close.

        Raises:
            OSError: the disk is full, or worse.
        """
        self.flush()
        self._close()
        return ReceivedInstance(
            request=self.request,
            path=self._path,
            size_bytes=self._size,
            head=bytes(self._head),
            dataset_offset=self._offset,
        )

    def discard(self) -> None:
        """Close and remove the file; never raises, the janitor sweeps what is left."""
        self._pieces.clear()
        try:
            self._close()
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("temporary_file_not_removed", errno=error.errno)

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def admit(handler: StoreHandler, request: StoreRequest, abstract_syntax: str) -> int:
    """Decide before the dataset is read: the status that refuses it, or success."""
    if not request.sop_class_uid or not request.sop_instance_uid:
        return statuses.MISSING_UID
    if request.sop_class_uid != abstract_syntax:
        return statuses.SOP_CLASS_NOT_SUPPORTED
    try:
        return handler.admit(request)
    except Exception:
        log.exception("store_admission_failed", calling_ae=request.peer.calling_ae)
        return statuses.PROCESSING_FAILURE


def store(handler: StoreHandler, incoming: Incoming) -> int:
    """Close the file, give it to the handler and return the status to answer.

    One of the edges that catch everything: whatever goes wrong, the peer gets an answer and the
    association goes on.
    """
    try:
        instance = incoming.finish()
        return handler.store(instance)
    except OSError as error:
        incoming.discard()
        return failure_status(error)
    except Exception:
        incoming.discard()
        log.exception("store_failed", calling_ae=incoming.request.peer.calling_ae)
        return statuses.PROCESSING_FAILURE


def failure_status(error: OSError) -> int:
    """Log why bytes could not be kept and return the DIMSE status that says so."""
    log.error("instance_not_written", errno=error.errno, reason=error.strerror)
    if error.errno in _NO_SPACE:
        return statuses.OUT_OF_RESOURCES
    return statuses.PROCESSING_FAILURE


def file_meta(request: StoreRequest) -> bytes:
    """Encode preamble and file meta information (PS3.10 section 7.1) for a received dataset.

    Nothing in it depends on the association, so that the same instance sent again, by whomever,
    is the same file.
    """
    body = b"".join(
        (
            struct.pack("<HH2sHL", 2, 0x0001, b"OB", 0, 2) + b"\0\1",
            _short(0x0002, b"UI", request.sop_class_uid),
            _short(0x0003, b"UI", request.sop_instance_uid),
            _short(0x0010, b"UI", request.transfer_syntax_uid),
            _short(0x0012, b"UI", identifiers.IMPLEMENTATION_CLASS_UID),
            _short(0x0013, b"SH", identifiers.IMPLEMENTATION_VERSION, pad=b" "),
        )
    )
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(body)) + body


def _short(element: int, vr: bytes, text: str, pad: bytes = b"\0") -> bytes:
    value = text.encode("latin-1", "replace")
    value += pad * (len(value) & 1)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
