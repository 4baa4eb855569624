"""Errors of HL7 messages.

NodeError
└── Hl7Error          (permanent)  a message says something that cannot be read or used
    ├── Hl7Missing                 it lacks what we cannot do without
    └── Hl7Unsupported             its type, version or processing id is none of ours
"""

from __future__ import annotations

from dicom_nodes.errors import NodeError


class Hl7Error(NodeError):
    """A message cannot be used; the text holds nothing of its content."""

    permanent = True
    code = "207"
    """Of table 0357."""


class Hl7Missing(Hl7Error):
    """A required field is empty."""

    code = "101"


class Hl7Unsupported(Hl7Error):
    """We do not take this kind of message."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code
