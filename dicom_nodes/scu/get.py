"""C-GET, study root: fetch a series over the very association on which it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import build_context, build_role, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet  # type: ignore[attr-defined]

from dicom_nodes import answers, statuses
from dicom_nodes.errors import PeerRefused
from dicom_nodes.node import Node
from dicom_nodes.scu.association import associate, broken, where

_PENDING = 0xFF00
_SOME_FAILED = 0xB000
#: A context for each, so that the peer sends what it stores and need not transcode.
_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)


def get_series(
    node: Node,
    study_uid: str,
    series_uid: str,
    sop_classes: Sequence[str],
    take: Callable[[bytes], None],
) -> None:
    """Have `node` send a series to us; each instance is given to `take` as a Part-10 file.

    Args:
        node: the archive.
        study_uid: of the study it is in.
        series_uid: the series.
        sop_classes: storage classes to accept, 18 at most.
        take: what it raises ends the transfer, and is raised here.

    Raises:
        NodeError: unavailable, it has no C-GET, or an instance could not be sent.
    """
    failed: list[Exception] = []

    def stored(event: Any) -> int:
        try:
            take(event.encoded_dataset())
        except Exception as error:  # noqa: BLE001  raised below, in the caller's thread
            failed.append(error)
            return statuses.OUT_OF_RESOURCES
        return statuses.SUCCESS

    model = StudyRootQueryRetrieveInformationModelGet
    contexts = [build_context(model)]
    contexts += [build_context(one, syntax) for one in sop_classes for syntax in _SYNTAXES]
    roles = [build_role(one, scp_role=True) for one in sop_classes]
    handlers = [(evt.EVT_C_STORE, stored)]
    with associate(node, contexts, roles=roles, evt_handlers=handlers) as association:
        if model not in {c.abstract_syntax for c in association.accepted_contexts}:
            raise PeerRefused(
                f"{where(node)}: offers no C-GET, which fetching needs; allow it there for "
                f"{node.calling_ae}, or name a dicomweb destination"
            )
        for status, _ in association.send_c_get(_query(study_uid, series_uid), model):
            if failed:
                raise failed[0]
            if "Status" not in status:
                raise broken(node)
            if status.Status != _PENDING:
                return _check(node, int(status.Status))
    raise broken(node)


def _check(node: Node, status: int) -> None:
    if status == _SOME_FAILED:
        raise PeerRefused(f"{where(node)}: C-GET left instances out; check the peer's log")
    error = answers.error_of(status, f"{where(node)}: C-GET failed")
    if error:
        raise error


def _query(study_uid: str, series_uid: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = study_uid
    query.SeriesInstanceUID = series_uid
    return query
