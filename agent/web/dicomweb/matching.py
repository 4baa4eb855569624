"""From the match keys of a search to conditions of the record. Pure."""

from __future__ import annotations

import sqlalchemy as sa

from agent.settings_base import Level as Priority
from db.models import Study
from db.queries.dicomweb import Condition, Filters
from dicom_nodes.web.query import Kind, Level, Match, Query

_STUDY = {
    "StudyInstanceUID": Study.study_uid,
    "StudyDate": Study.study_date,
    "StudyTime": Study.study_time,
    "AccessionNumber": Study.accession_number,
    "PatientName": Study.patient_name,
    "PatientID": Study.patient_id,
    "IssuerOfPatientID": Study.issuer_of_patient_id,
    "PatientBirthDate": Study.patient_birth_date,
    "PatientSex": Study.patient_sex,
    "StudyDescription": Study.description,
    "InstitutionName": Study.institution,
    "RequestedProcedurePriority": Study.priority,
}
_SERIES = {
    "SeriesInstanceUID": "series_uid",
    "Modality": "modality",
    "SeriesNumber": "number",
    "SeriesDescription": "description",
    "BodyPartExamined": "body_part",
}
_OBJECT = {
    "SeriesInstanceUID": "series_uid",
    "Modality": "modality",
    "SeriesNumber": "series_number",
    "SOPInstanceUID": "sop_uid",
    "SOPClassUID": "sop_class_uid",
    "InstanceNumber": "number",
}
#: Compared as they are; other texts without regard to case (PS3.4 C.2.2.2.1 allows it for names).
_EXACT = frozenset({"PatientID", "IssuerOfPatientID", "AccessionNumber", "PatientSex"})
#: Values of Requested Procedure Priority that mean our lowest level.
_LOWEST = frozenset({"ROUTINE", "LOW"})


def study_filters(query: Query, study_uid: str = "") -> Filters:
    """Conditions on studies; `study_uid` is the one in the URL."""
    conditions: list[Condition] = [Study.study_uid == study_uid] if study_uid else []
    modalities: tuple[str, ...] = ()
    for match in query.of(Level.STUDY):
        if match.keyword == "ModalitiesInStudy":
            modalities = tuple(like(value) for value in match.values)
        else:
            conditions.append(_condition(match))
    return Filters(tuple(conditions), modalities)


def series_keys(query: Query, series_uid: str = "") -> dict[str, tuple[str, ...]]:
    """Conditions on series, for `db.queries.dicomweb.series`."""
    return _keys(query.of(Level.SERIES), _SERIES, {"series_uid": series_uid})


def object_keys(
    query: Query, series_uid: str = "", sop_uid: str = ""
) -> dict[str, tuple[str, ...]]:
    """Conditions on instances, for `db.queries.dicomweb.objects`."""
    matches = (*query.of(Level.SERIES), *query.of(Level.INSTANCE))
    known = tuple(match for match in matches if match.keyword in _OBJECT)
    return _keys(known, _OBJECT, {"series_uid": series_uid, "sop_uid": sop_uid})


def like(value: str) -> str:
    """A value with DICOM's wildcards as a pattern of SQL's LIKE (escape character backslash)."""
    escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _condition(match: Match) -> Condition:
    column = _STUDY[match.keyword]
    if match.kind is Kind.UID:
        return column.in_(match.values)
    if match.kind is Kind.RANGE:
        low, high = match.values
        bounds = [column >= low, column != ""]
        # "~" sorts behind every digit: an upper bound of 0930 holds until 093059
        return sa.and_(*bounds, *([column <= high + "~"] if high else []))
    (value,) = match.values
    if match.keyword == "RequestedProcedurePriority":
        return column == (Priority.LOW if value.upper() in _LOWEST else value.upper())
    if match.keyword in _EXACT and not {"*", "?"} & set(value):
        return column == value
    return column.ilike(like(value), escape="\\")


def _keys(
    matches: tuple[Match, ...], names: dict[str, str], given: dict[str, str]
) -> dict[str, tuple[str, ...]]:
    keys = {}
    for match in matches:
        name = names[match.keyword]
        if match.kind is Kind.TEXT:
            keys[f"{name}~"] = tuple(like(value) for value in match.values)
        else:
            keys[name] = match.values
    for name, value in given.items():
        if value:  # what stands in the URL cannot be widened by a parameter
            within = keys.get(name, (value,))
            keys[name] = (value,) if value in within else ()
    return keys
