"""What a peer answers to a store and to questions about a study, over DIMSE and DICOMweb alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dicom_nodes.errors import NodeError, PeerBusy, PeerRefused

SUCCESS = 0x0000
#: Some archives report a repeated instance as a failure; they hold it, which is what we want.
DUPLICATE_SOP_INSTANCE = 0x0111

#: Failures that may pass: out of resources (PS3.4 B.2.3), processing failure and duplicate
#: invocation (PS3.7 annex C). Every other failure repeats itself however often we ask.
_BUSY = frozenset({0x0110, 0x0210, *range(0xA700, 0xA800)})
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000)})
_MEANINGS = {
    0x0110: "processing failure",
    0x0112: "no such SOP instance",
    0x0117: "invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
}
_MEANINGS_BY_TYPE = {
    0xA700: "out of resources",
    0xA900: "dataset does not match SOP class",
    0xC000: "cannot understand",
}


@dataclass(frozen=True)
class StoreOutcome:
    """What became of one instance.

    Attributes:
        sop_instance_uid: which instance.
        status: DIMSE status or DICOMweb failure reason; None when the peer never answered.
        error: why it is not stored, or None.
    """

    sop_instance_uid: str
    status: int | None = None
    error: NodeError | None = None

    @property
    def ok(self) -> bool:
        """Whether the peer holds the instance now."""
        return self.error is None

    @property
    def warning(self) -> bool:
        """Whether it was stored with a remark (coercion, discarded elements, duplicate)."""
        return self.ok and self.status not in {None, SUCCESS}

    def raise_for_error(self) -> None:
        """Raise the error, if there is one.

        Raises:
            NodeError: as recorded.
        """
        if self.error is not None:
            raise self.error


@dataclass(frozen=True)
class HeldStudy:
    """Identity of a study as a peer holds it; None = the peer did not say.

    Attributes:
        patient_id, issuer_of_patient_id, accession_number: as answered, padding removed.
    """

    patient_id: str | None
    issuer_of_patient_id: str | None
    accession_number: str | None


@dataclass(frozen=True)
class HeldObjects:
    """What a peer holds of some series of a study.

    Attributes:
        study: under whose identity it holds the study; None = it does not hold it.
        instances: SOP Instance UID -> Study Instance UID as answered (None = it did not say).
    """

    study: HeldStudy | None
    instances: Mapping[str, str | None]


def store_outcome(sop_instance_uid: str, status: int, peer: str) -> StoreOutcome:
    """Judge the status of a C-STORE response or the failure reason of a STOW response."""
    return StoreOutcome(sop_instance_uid, status, error_of(status, f"{peer}: instance not stored"))


def error_of(status: int, what: str) -> NodeError | None:
    """The error a DIMSE status means, or None for success and warnings."""
    if status in {SUCCESS, DUPLICATE_SOP_INSTANCE} or status in _WARNINGS:
        return None
    message = f"{what}: {meaning(status)} (0x{status:04X})"
    if status in _BUSY:
        return PeerBusy(f"{message}; will try again")
    return PeerRefused(f"{message}; see the peer's log for this status")


def meaning(status: int) -> str:
    """Name of a failure status, by the standard."""
    by_type = _MEANINGS_BY_TYPE.get(status & 0xFF00)
    if by_type is None and status >= 0xC000:
        by_type = _MEANINGS_BY_TYPE[0xC000]
    return _MEANINGS.get(status) or by_type or "failure"


def text(value: object) -> str | None:
    """An element's value as text without padding; None stays None."""
    return None if value is None else str(value).strip(" \0")
