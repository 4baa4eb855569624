"""Storage commitment datasets (PS3.4 annex J): what is asked, what is reported, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from dicom_nodes import identifiers

#: The well-known SOP Instance of the push model.
INSTANCE_UID = "1.2.840.10008.1.20.1.1"
#: Action and event types (PS3.4 tables J.3-1 and J.3-3).
REQUEST = 1
ALL_COMMITTED, SOME_FAILED = 1, 2

#: Failure Reason (0008,1197), PS3.3 C.14.1.1.
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119

#: More than any study; a list beyond it is no honest request.
MAX_REFERENCES = 50_000


class CommitmentError(ValueError):
    """A dataset that is no storage commitment; says which element, holds no values."""


@dataclass(frozen=True)
class Reference:
    """One object by class and instance."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Request:
    """What a peer asks to be committed."""

    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class Report:
    """What became of a request.

    Attributes:
        committed: kept by whom we asked.
        failed: not kept, each with its Failure Reason.
    """

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...] = ()

    @property
    def event_type(self) -> int:
        """Event Type ID of the N-EVENT-REPORT."""
        return SOME_FAILED if self.failed else ALL_COMMITTED


def request_dataset(request: Request) -> Dataset:
    """The Action Information of a request."""
    ds = Dataset()
    ds.TransactionUID = request.transaction_uid
    ds.ReferencedSOPSequence = [_item(reference) for reference in request.references]
    return ds


def report_dataset(report: Report) -> Dataset:
    """The Event Information of a report."""
    ds = Dataset()
    ds.TransactionUID = report.transaction_uid
    if report.committed:
        ds.ReferencedSOPSequence = [_item(reference) for reference in report.committed]
    if report.failed:
        ds.FailedSOPSequence = [_item(reference, reason) for reference, reason in report.failed]
    return ds


def read_request(ds: Dataset) -> Request:
    """A request as it came from the wire.

    Raises:
        CommitmentError: transaction or references are missing, or too many.
    """
    references = _references(ds, "ReferencedSOPSequence")
    if not references:
        raise CommitmentError("Referenced SOP Sequence is empty or missing")
    return Request(_transaction(ds), tuple(references))


def read_report(ds: Dataset) -> Report:
    """A report as it came from the wire.

    Raises:
        CommitmentError: the transaction is missing, or there are too many references.
    """
    items = ds.get("FailedSOPSequence") or ()
    reasons = [int(item.get("FailureReason") or PROCESSING_FAILURE) for item in items]
    failed = zip(_references(ds, "FailedSOPSequence"), reasons, strict=True)
    committed = _references(ds, "ReferencedSOPSequence")
    return Report(_transaction(ds), tuple(committed), tuple(failed))


def _transaction(ds: Dataset) -> str:
    uid = _uid(ds, "TransactionUID")
    if not uid:
        raise CommitmentError("Transaction UID is missing")
    return uid


def _references(ds: Dataset, keyword: str) -> list[Reference]:
    items: Sequence[Any] = ds.get(keyword) or ()
    if len(items) > MAX_REFERENCES:
        raise CommitmentError(f"more than {MAX_REFERENCES} references")
    found = [
        Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))
        for item in items
    ]
    if not all(reference.sop_instance_uid for reference in found):
        raise CommitmentError("a reference without SOP Instance UID")
    return found


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def _uid(ds: Dataset, keyword: str) -> str:
    uid = str(ds.get(keyword) or "").strip(" \0")
    if len(uid) > identifiers.MAX_STORED_UID:
        raise CommitmentError("an identifier is too long")
    return uid
