"""Framing of HL7 messages on a byte stream (Minimal Lower Layer Protocol)."""

from __future__ import annotations

START = b"\x0b"
END = b"\x1c\r"
#: Between messages some senders put line ends; anything else there is not MLLP.
BETWEEN = b"\r\n \x00"


def frame(message: bytes) -> bytes:
    """A message as it goes over the wire."""
    return START + message + END
