"""A DICOM application entity: AE title, host, port, and how to reach it securely."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """A remote application entity.

    Attributes:
        ae_title: its AE title (called AE title of our associations).
        host, port: where it listens.
        calling_ae: the AE title we present to it.
        tls: context for secure transport (PS3.15 B.12), or None for plain TCP.
        timeout_s: connect, ACSE, DIMSE and network time-out.
        max_pdu: largest PDU we accept.
    """

    ae_title: str
    host: str
    port: int
    calling_ae: str = "WLAGENT"
    tls: ssl.SSLContext | None = None
    timeout_s: float = 30.0
    max_pdu: int = 131072
