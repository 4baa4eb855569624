"""Who this installation is: one Device UID, made once and kept with the data."""

from __future__ import annotations

import os
import re
import socket
import uuid
from pathlib import Path

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
