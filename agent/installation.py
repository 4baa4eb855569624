"""Who this installation is: one Device UID, made once and kept with the data; and who runs it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import socket
import uuid
from pathlib import Path
from types import TracebackType

from agent import PRODUCT, __version__
from agent.errors import AgentError
from agent.results.context import Installation

FILE_NAME = "device_uid"
_UID = re.compile(r"^2\.25\.[1-9][0-9]{0,38}$")


def load(data_dir: Path, institution: str = "") -> Installation:
    """Read the Device UID below `data_dir`, or make one on first use.

    Raises:
        AgentError: the file was damaged; a silently new identity would let our own results come
            back as foreign ones.
    """
    return Installation(
        device_uid=_device_uid(data_dir / FILE_NAME),
        product=PRODUCT,
        version=__version__,
        node_name=socket.gethostname().split(".")[0][:16] or "node",
        institution=institution,
    )


def owner_prefix(device_uid: str) -> str:
    """Prefix of this node's leases: the same after a restart, and nobody else's.

    The whole host name, because nodes that share a database are often called alike at the front;
    the installation, because one host may run several.
    """
    return f"{socket.gethostname()[:30]}.{hashlib.sha256(device_uid.encode()).hexdigest()[:8]}/"


class InUse(AgentError):
    """Another agent of this host runs on the same data directory."""

    permanent = True


class Occupancy:
    """Holds a data directory for one agent of this host; the kernel lets go when it dies.

    Two would free each other's leases and work on the same studies. Other hosts that share the
    directory are meant to, and have a lock of their own.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / f"agent.{socket.gethostname()}.lock"
        self._descriptor: int | None = None

    def __enter__(self) -> Occupancy:
        """Take it.

        Raises:
            InUse: somebody has it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise InUse(
                f"{self._path.parent}: another agent runs on this data directory; stop it, or give "
                "this one a storage.data_dir of its own"
            ) from error
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None = None,
        _error: BaseException | None = None,
        _trace: TracebackType | None = None,
    ) -> None:
        """Let go; safe to repeat."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _device_uid(path: Path) -> str:
    if path.is_file():
        text = path.read_text(encoding="ascii", errors="replace").strip()
        if not _UID.match(text):
            raise AgentError(
                f"{path} does not hold a UID; restore it from a backup, or remove it to start as "
                "a new device"
            )
        return text
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(f"2.25.{uuid.uuid4().int}\n", encoding="ascii")
    try:
        os.link(temporary, path)  # whoever is first wins, and everybody reads the same
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return _device_uid(path)
