"""C-MOVE, study root: ask a peer to send a study or series to an AE title it knows."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove  # type: ignore[attr-defined]

from dicom_nodes import answers
from dicom_nodes.errors import PeerRefused
from dicom_nodes.node import Node
from dicom_nodes.scu.association import associate, broken, where

_PENDING = 0xFF00
_DESTINATION_UNKNOWN = 0xA801


@dataclass(frozen=True)
class MoveOutcome:
    """Sub-operations of a C-MOVE, as the peer counted them."""

    completed: int
    failed: int
    warnings: int

    @property
    def ok(self) -> bool:
        """Whether every instance arrived."""
        return self.failed == 0


def move(
    node: Node, destination_ae: str, study_uid: str, series_uid: str | None = None
) -> MoveOutcome:
    """Have `node` send a study (or one series) to `destination_ae`; returns when it has.

    Raises:
        NodeError: unavailable, refused (e.g. it does not know the destination), or failed.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES" if series_uid else "STUDY"
    query.StudyInstanceUID = study_uid
    if series_uid:
        query.SeriesInstanceUID = series_uid
    model = StudyRootQueryRetrieveInformationModelMove
    with associate(node, [build_context(model)]) as association:
        for status, _ in association.send_c_move(query, destination_ae, model):
            if "Status" not in status:
                raise broken(node)
            if status.Status != _PENDING:
                return _outcome(status, node, destination_ae)
    raise broken(node)


def _outcome(status: Dataset, node: Node, destination_ae: str) -> MoveOutcome:
    if status.Status == _DESTINATION_UNKNOWN:
        raise PeerRefused(
            f"{where(node)}: does not know the move destination {destination_ae}; "
            "enter its AE title, host and port there"
        )
    error = answers.error_of(int(status.Status), f"{where(node)}: C-MOVE failed")
    if error:
        raise error
    return MoveOutcome(
        completed=int(status.get("NumberOfCompletedSuboperations") or 0),
        failed=int(status.get("NumberOfFailedSuboperations") or 0),
        warnings=int(status.get("NumberOfWarningSuboperations") or 0),
    )
