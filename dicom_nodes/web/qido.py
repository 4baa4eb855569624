"""QIDO-RS: which studies a server holds, how many instances, under whose identity."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pydicom.dataset import Dataset

from dicom_nodes.answers import HeldObjects, HeldStudy, text
from dicom_nodes.errors import PeerRefused
from dicom_nodes.web.peer import DicomWebPeer, connect

_IDENTITY = ["PatientID", "IssuerOfPatientID", "AccessionNumber"]


def find_studies(peer: DicomWebPeer, fields: Sequence[str] = (), **keys: str) -> list[Dataset]:
    """Studies that match the keys, e.g. ``PatientID="1"``; `fields` are answered beside the usual.

    Raises:
        NodeError: the query failed.
    """
    with connect(peer) as client:
        found = client.search_for_studies(search_filters=keys, fields=list(fields) or None)
        return _datasets(peer, found)


def find_series(peer: DicomWebPeer, study_uid: str) -> list[Dataset]:
    """Series of a study.

    Raises:
        NodeError: the query failed.
    """
    with connect(peer) as client:
        return _datasets(peer, client.search_for_series(study_uid))


def count_instances(
    peer: DicomWebPeer, study_uid: str, exclude_series: Collection[str] = ()
) -> int | None:
    """How many instances of a study the server holds; None = unknown study, or it does not say.

    Args:
        peer: the server.
        study_uid: the study.
        exclude_series: Series Instance UIDs that do not count (our own results).

    Raises:
        NodeError: the query failed.
    """
    if not exclude_series:
        study = _study(peer, study_uid, ["NumberOfStudyRelatedInstances"])
        count = _number(study, "NumberOfStudyRelatedInstances")
        if count is not None:
            return count
    with connect(peer) as client:
        series = client.search_for_series(
            study_uid, fields=["NumberOfSeriesRelatedInstances"], get_remaining=False
        )
    return _sum(_datasets(peer, series), exclude_series)


def held_study(peer: DicomWebPeer, study_uid: str) -> HeldStudy | None:
    """Identity under which the server holds a study; None = it does not hold it.

    Raises:
        NodeError: the query failed.
    """
    study = _study(peer, study_uid, _IDENTITY)
    if study is None:
        return None
    return HeldStudy(*(text(study.get(keyword)) for keyword in _IDENTITY))


def held_objects(peer: DicomWebPeer, study_uid: str, series_uids: Collection[str]) -> HeldObjects:
    """Read back: whose study the server holds, and what of these series.

    Raises:
        NodeError: the query failed.
    """
    instances: dict[str, str | None] = {}
    held = held_study(peer, study_uid)
    with connect(peer) as client:
        for series_uid in series_uids if held is not None else ():
            found = client.search_for_instances(
                study_uid, series_uid, fields=["StudyInstanceUID"], get_remaining=False
            )
            for match in _datasets(peer, found):
                sop_uid = text(match.get("SOPInstanceUID"))
                if sop_uid:
                    instances[sop_uid] = text(match.get("StudyInstanceUID")) or None
    return HeldObjects(held, instances)


def probe(peer: DicomWebPeer) -> None:
    """Ask the smallest query there is, to see that the server answers and lets us in.

    Raises:
        NodeError: what is wrong between us and the server.
    """
    with connect(peer) as client:
        _datasets(peer, client.search_for_studies(limit=1))


def _study(peer: DicomWebPeer, study_uid: str, fields: list[str]) -> Dataset | None:
    with connect(peer) as client:
        found = client.search_for_studies(
            search_filters={"StudyInstanceUID": study_uid}, fields=fields
        )
    for match in _datasets(peer, found):  # servers that ignore filters return other studies too
        if text(match.get("StudyInstanceUID")) == study_uid:
            return match
    return None


def _sum(series: list[Dataset], exclude_series: Collection[str]) -> int | None:
    counted = [s for s in series if text(s.get("SeriesInstanceUID")) not in exclude_series]
    counts = [_number(s, "NumberOfSeriesRelatedInstances") for s in counted]
    if not series or None in counts:
        return None
    return sum(count or 0 for count in counts)


def _number(match: Dataset | None, keyword: str) -> int | None:
    value = None if match is None else match.get(keyword)
    return None if value in {None, ""} else int(value)


def _datasets(peer: DicomWebPeer, found: list[dict[str, Any]]) -> list[Dataset]:
    try:
        return [Dataset.from_json(match) for match in found]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PeerRefused(
            f"{peer.url}: the answer is not DICOM JSON; check the path of the url"
        ) from error
