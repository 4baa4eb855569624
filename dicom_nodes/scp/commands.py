"""Command sets of the fast path, and how an association may break.

Implicit VR little endian, group 0000 (PS3.7 section 6.3, table 9.3-1 and 9.3-12).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicom_nodes import statuses

P_DATA = 4
C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
NO_DATASET_FOLLOWS = 0x0101

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")


class PeerGone(Exception):
    """The association ended without release: aborted, closed or silent for too long."""


class PeerSilent(PeerGone):
    """The peer is connected but does not go on; we abort."""


class ProtocolError(Exception):
    """The peer broke the protocol; carries the reason of our A-ABORT."""

    def __init__(self, message: str, reason: int = statuses.INVALID_PDU_PARAMETER) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Command:
    """The elements of a request that a C-STORE or C-ECHO response repeats (PS3.7 9.3)."""

    field: int
    message_id: bytes
    has_dataset: bool
    sop_class: bytes
    sop_instance: bytes

    @classmethod
    def parse(cls, encoded: bytes) -> Command:
        """Read a command set: implicit VR little endian, group 0000 only.

        Raises:
            ProtocolError: it is cut off, or lacks what every request has.
        """
        elements: dict[int, bytes] = {}
        offset = 0
        while offset < len(encoded):
            if len(encoded) - offset < 8:
                raise ProtocolError("a command that is cut off")
            group, element, length = _ELEMENT.unpack_from(encoded, offset)
            offset += 8 + length
            if group != 0 or offset > len(encoded):
                raise ProtocolError("a command that is cut off")
            elements[element] = encoded[offset - length : offset]
        field, dataset = elements.get(0x0100, b""), elements.get(0x0800, b"")
        message_id = elements.get(0x0110, elements.get(0x0120, b""))
        if not len(field) == len(dataset) == len(message_id) == 2:
            raise ProtocolError("a command without field, message id or dataset type")
        return cls(
            field=_US.unpack(field)[0],
            message_id=message_id,
            has_dataset=_US.unpack(dataset)[0] != NO_DATASET_FOLLOWS,
            sop_class=elements.get(0x0002, b""),
            sop_instance=elements.get(0x1000, b""),
        )

    def response(self, context_id: int, status: int) -> bytes:
        """Encode the response as one P-DATA-TF."""
        body = b"".join(
            (
                _element(0x0002, self.sop_class) if self.sop_class else b"",
                _element(0x0100, _US.pack(self.field | 0x8000)),
                _element(0x0120, self.message_id),
                _element(0x0800, _US.pack(NO_DATASET_FOLLOWS)),
                _element(0x0900, _US.pack(status)),
                _element(0x1000, self.sop_instance) if self.sop_instance else b"",
            )
        )
        body = _element(0x0000, struct.pack("<L", len(body))) + body
        head = struct.pack(">BBLLBB", P_DATA, 0, len(body) + 6, len(body) + 2, context_id, 3)
        return head + body


def _element(element: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) & 1)
    return _ELEMENT.pack(0, element, len(value)) + value
