"""C-FIND, study root: which studies a peer holds, how many instances, under whose identity."""

from __future__ import annotations

from collections.abc import Collection

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from dicom_nodes import answers
from dicom_nodes.answers import HeldObjects, HeldStudy, text
from dicom_nodes.node import Node
from dicom_nodes.scu.association import associate, broken, where

_PENDING = frozenset({0xFF00, 0xFF01})
_CONTEXT = build_context(StudyRootQueryRetrieveInformationModelFind)


def find(node: Node, query: Dataset) -> list[Dataset]:
    """Ask one C-FIND and return all matches.

    Raises:
        NodeError: unavailable, refused, or a failure status.
    """
    with associate(node, [_CONTEXT]) as association:
        return _ask(node, association, query)


def find_studies(node: Node, query: Dataset | None = None, **keys: str) -> list[Dataset]:
    """Studies that match the keys, e.g. ``PatientID="1"``; the usual return keys are added.

    Raises:
        NodeError: as `find`.
    """
    wanted = _identifier(
        "STUDY",
        PatientID="",
        PatientName="",
        AccessionNumber="",
        StudyInstanceUID="",
        StudyDate="",
        StudyTime="",
        StudyDescription="",
        ModalitiesInStudy="",
        NumberOfStudyRelatedInstances=None,
    )
    wanted.update(query or Dataset())
    wanted.update(_identifier("STUDY", **keys))
    return find(node, wanted)


def count_instances(node: Node, study_uid: str, exclude_series: Collection[str] = ()) -> int | None:
    """How many instances of a study the peer holds; None = unknown study, or it does not say.

    Args:
        node: the query SCP.
        study_uid: the study.
        exclude_series: Series Instance UIDs that do not count (our own results); asking for them
            costs a series-level query, as does a peer that gives no study-level count.

    Raises:
        NodeError: as `find`.
    """
    if not exclude_series:
        study = _identifier("STUDY", StudyInstanceUID=study_uid, NumberOfStudyRelatedInstances=None)
        for match in find(node, study):
            count = number(match, "NumberOfStudyRelatedInstances")
            if count is not None:
                return count
    series = _identifier(
        "SERIES",
        StudyInstanceUID=study_uid,
        SeriesInstanceUID="",
        NumberOfSeriesRelatedInstances=None,
    )
    return sum_series(find(node, series), exclude_series)


def held_study(node: Node, study_uid: str) -> HeldStudy | None:
    """Identity under which the peer holds a study; None = it does not hold it.

    Raises:
        NodeError: as `find`.
    """
    return pick_held(find(node, _identity_query(study_uid)), study_uid)


def held_objects(node: Node, study_uid: str, series_uids: Collection[str]) -> HeldObjects:
    """Read back, over one association: whose study the peer holds, and what of these series.

    Raises:
        NodeError: as `find`.
    """
    instances: dict[str, str | None] = {}
    with associate(node, [_CONTEXT]) as association:
        held = pick_held(_ask(node, association, _identity_query(study_uid)), study_uid)
        for series_uid in series_uids:
            query = _identifier(
                "IMAGE",
                StudyInstanceUID=study_uid,
                SeriesInstanceUID=series_uid,
                SOPInstanceUID="",
            )
            for match in _ask(node, association, query):
                sop_uid = text(match.get("SOPInstanceUID"))
                if sop_uid:
                    instances[sop_uid] = text(match.get("StudyInstanceUID")) or None
    return HeldObjects(held, instances)


def pick_held(matches: list[Dataset], study_uid: str) -> HeldStudy | None:
    """The identity in the match for that very study; peers that ignore keys return others."""
    for match in matches:
        if text(match.get("StudyInstanceUID")) == study_uid:
            return HeldStudy(
                patient_id=text(match.get("PatientID")),
                issuer_of_patient_id=text(match.get("IssuerOfPatientID")),
                accession_number=text(match.get("AccessionNumber")),
            )
    return None


def sum_series(matches: list[Dataset], exclude_series: Collection[str]) -> int | None:
    """Sum of the series' counts; None when there is no series, or one without a count."""
    total = 0
    for match in matches:
        if text(match.get("SeriesInstanceUID")) in exclude_series:
            continue
        count = number(match, "NumberOfSeriesRelatedInstances")
        if count is None:
            return None
        total += count
    return total if matches else None


def number(match: Dataset, keyword: str) -> int | None:
    """An integer element of a match; None when absent or empty."""
    value = match.get(keyword)
    return None if value in {None, ""} else int(value)


def _ask(node: Node, association: Association, query: Dataset) -> list[Dataset]:
    matches = []
    responses = association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
    for status, identifier in responses:
        if "Status" not in status:
            raise broken(node)
        error = answers.error_of(_settled(status), f"{where(node)}: C-FIND failed")
        if error:
            raise error
        if identifier is not None:
            matches.append(identifier)
    return matches


def _identity_query(study_uid: str) -> Dataset:
    return _identifier(
        "STUDY",
        StudyInstanceUID=study_uid,
        PatientID="",
        IssuerOfPatientID="",
        AccessionNumber="",
    )


def _settled(status: Dataset) -> int:
    value = int(status.Status)
    return answers.SUCCESS if value in _PENDING else value


def _identifier(level: str, **keys: str | None) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier
