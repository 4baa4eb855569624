"""UIDs as they come from the wire: what is valid, and how to name a directory after one."""

from __future__ import annotations

import hashlib
import re

IMPLEMENTATION_CLASS_UID = "2.25.85000263607043831820691405983971442632"
"""Names this implementation in associations and in the file meta of what it stores."""

IMPLEMENTATION_VERSION = "WORKLIST_AGENT"

MAX_STORED_UID = 128
"""Longest identifier the record keeps; the standard allows 64 characters."""

_VALID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_SAFE = re.compile(r"[0-9]+(\.[0-9]+)*")


def is_valid_uid(uid: str) -> bool:
    """Say whether `uid` follows PS3.5 section 9: digits, dots, no leading zero, 64 characters."""
    return len(uid) <= 64 and _VALID.fullmatch(uid) is not None


def clean_uid(raw: bytes) -> str:
    """Return a UID value without its padding; bytes that are no text become Latin-1."""
    return raw.rstrip(b"\0 ").lstrip(b" ").decode("latin-1")


def safe_name(uid: str) -> str:
    """Return a file or directory name for `uid`: itself, or a hash where it is not all digits.

    A UID comes from the wire, so it may hold slashes, dots or control characters.
    """
    if len(uid) <= 64 and _SAFE.fullmatch(uid):
        return uid
    return "x" + hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest()[:40]
