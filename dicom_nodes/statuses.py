"""DIMSE and association status values we answer (PS3.7 annex C, PS3.4 table B.2-1, PS3.8 9.3)."""

from __future__ import annotations

from dataclasses import dataclass

SUCCESS = 0x0000

# C-STORE, PS3.4 table B.2-1
OUT_OF_RESOURCES = 0xA700
DATASET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
NOT_PARSABLE = 0xC001
MISSING_UID = 0xC002
UID_TOO_LONG = 0xC003
NO_DATASET = 0xC004

# any service, PS3.7 annex C
PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED = 0x0122


@dataclass(frozen=True)
class Rejection:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""

    result: int
    source: int
    reason: int
    name: str

    @property
    def pdu(self) -> bytes:
        """The encoded A-ASSOCIATE-RJ."""
        return bytes((3, 0, 0, 0, 0, 4, 0, self.result, self.source, self.reason))


NO_REASON_GIVEN = Rejection(1, 1, 1, "address_not_allowed")
CALLING_AE_UNKNOWN = Rejection(1, 1, 3, "calling_ae_not_allowed")
CALLED_AE_UNKNOWN = Rejection(1, 1, 7, "called_ae_unknown")
LOCAL_LIMIT_EXCEEDED = Rejection(2, 3, 2, "too_many_associations")

# A-ABORT by the service provider, PS3.8 table 9-26
UNRECOGNIZED_PDU = 1
UNEXPECTED_PDU = 2
INVALID_PDU_PARAMETER = 6
NO_ABORT_REASON = 0


def abort_pdu(reason: int) -> bytes:
    """Encode an A-ABORT of the service provider (source 2)."""
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, reason))


RELEASE_RP_PDU = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"
