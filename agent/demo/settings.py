"""The demo's configuration: the shipped one, with short waits, free ports and pushing on."""

from __future__ import annotations

import socket
from importlib import resources
from pathlib import Path
from typing import Any

from agent import config
from agent.config import Config

PACK = "demo-head"
DESTINATION = "pacs"
QUIET_S = 2.0


def pack_directory() -> Path:
    """The demonstration pack that ships with the package."""
    return Path(str(resources.files("inference") / "demo_pack"))


def demo_config(
    work_dir: Path, pacs: tuple[str, str, int], web_port: int, dicom_port: int
) -> Config:
    """Embedded defaults: everything below `work_dir`, results to the given (AE, host, port)."""
    ae_title, host, port = pacs
    data: dict[str, Any] = {
        "storage": {"data_dir": str(work_dir / "agent"), "low_water_mark_mb": 256},
        "dicom": {"port": dicom_port},
        "web": {"port": web_port, "refresh_s": 2.0},
        "assembly": {"quiet_s": QUIET_S},
        "packs": {PACK: {"path": str(pack_directory()), "shadow": False}},
        "routing": {
            "rules": [
                {"name": "head CT", "when": {"modality": "CT", "text": "head|brain"}, "pack": PACK},
                {
                    "name": "brain MRI",
                    "when": {"modality": "MR", "text": "head|brain"},
                    "pack": PACK,
                },
            ]
        },
        "destinations": [
            {
                "name": DESTINATION,
                "kind": "dicom",
                "ae_title": ae_title,
                "host": host,
                "port": port,
                "shadow": False,
            }
        ],
        "delivery": {"first_retry_s": 1.0, "max_retry_s": 10.0},
    }
    return config.from_mapping(data, source="demo defaults")


def free_port(preferred: int) -> int:
    """The preferred port if nothing listens there, else 0 (any free one)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return 0
    return preferred
