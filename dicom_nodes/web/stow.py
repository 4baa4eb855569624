"""STOW-RS: instances to a DICOMweb server; stored is only what the answer lists as stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_nodes import answers
from dicom_nodes.answers import StoreOutcome
from dicom_nodes.errors import NodeError, PeerBusy
from dicom_nodes.web import peer as peers
from dicom_nodes.web.peer import DicomWebPeer


def store(peer: DicomWebPeer, instances: Iterable[Path | Dataset]) -> list[StoreOutcome]:
    """Send instances in one request; one outcome per instance, in the order given.

    Raises:
        NodeError: the request as a whole failed.
    """
    datasets = [i if isinstance(i, Dataset) else dcmread(i) for i in instances]
    with peers.connect(peer) as client:
        answer = _post(peer, client, datasets)
    stored = {_uid(item): item for item in answer.get("ReferencedSOPSequence") or []}
    failed = {_uid(item): item for item in answer.get("FailedSOPSequence") or []}
    return [_outcome(peer, str(ds.SOPInstanceUID), stored, failed) for ds in datasets]


def _post(peer: DicomWebPeer, client: DICOMwebClient, datasets: Sequence[Dataset]) -> Dataset:
    """The STOW response dataset; servers send one along with 409 (and others) as well as 200."""
    try:
        answer: Dataset = client.store_instances(datasets)
    except requests.HTTPError as error:
        answer = _body(error.response)
        if "FailedSOPSequence" not in answer:
            raise peers.judge(peer, error) from error
    return answer


def _body(response: requests.Response | None) -> Dataset:
    if response is None:
        return Dataset()
    if response.headers.get("Content-Type") not in {"application/dicom+json", "application/json"}:
        return Dataset()
    try:
        return Dataset.from_json(response.content.decode("utf-8"))
    except (ValueError, KeyError, TypeError):  # not DICOM JSON: the HTTP status will have to do
        return Dataset()


def _outcome(
    peer: DicomWebPeer, sop_uid: str, stored: dict[str, Dataset], failed: dict[str, Dataset]
) -> StoreOutcome:
    if sop_uid in failed:
        status = int(failed[sop_uid].get("FailureReason") or 0x0110)
        return _refused(peer, sop_uid, status)
    if sop_uid in stored:
        return StoreOutcome(sop_uid, int(stored[sop_uid].get("WarningReason") or answers.SUCCESS))
    return StoreOutcome(sop_uid, error=_unmentioned(peer))


def _refused(peer: DicomWebPeer, sop_uid: str, status: int) -> StoreOutcome:
    outcome = answers.store_outcome(sop_uid, status, peer.url)
    if outcome.ok and status != answers.DUPLICATE_SOP_INSTANCE:
        # listed as failed with a reason that is no failure: believe the list
        return StoreOutcome(sop_uid, status, _unmentioned(peer))
    return outcome


def _unmentioned(peer: DicomWebPeer) -> NodeError:
    return PeerBusy(
        f"{peer.url}: the STOW answer does not list the instance as stored; will try again; "
        "if it repeats, see the server's log"
    )


def _uid(item: Dataset) -> str:
    return str(item.get("ReferencedSOPInstanceUID", ""))
