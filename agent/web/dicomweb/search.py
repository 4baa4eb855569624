"""QIDO-RS (PS3.18 section 10.6): one page of answers from a fixed number of queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from agent import reading_order
from agent.reading_order import ReadingOrder
from agent.settings_base import Level as Priority
from agent.web.dicomweb import catalog, matching
from agent.web.dicomweb.catalog import DicomWeb, Headers
from db.engine import reading
from db.models import Study
from db.queries import dicomweb as queries
from db.queries.dicomweb import Counts, Filters, ObjectFound, SeriesFound
from dicom_nodes.web import json_model
from dicom_nodes.web.query import Query

Match = dict[str, Any]
#: As our Modality Worklist says it: an order without urgency says ROUTINE.
PRIORITIES = {level: "ROUTINE" if level is Priority.LOW else level.value for level in Priority}
MORE = "There are additional results that can be requested."

_STUDY_TAGS = catalog.tags_of(catalog.STUDY_FIELDS)
_SERIES_TAGS = catalog.tags_of(catalog.SERIES_FIELDS)
_SAMPLE_TAGS = catalog.tags_of(("ReferringPhysicianName", "StudyID", "TimezoneOffsetFromUTC"))
_SERIES_SAMPLE_TAGS = catalog.tags_of(
    (
        "SeriesDate",
        "SeriesTime",
        "SeriesDescription",
        "SeriesNumber",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
    )
)
_INSTANCE_TAGS = catalog.tags_of(catalog.INSTANCE_FIELDS)


@dataclass(frozen=True)
class Answer:
    """Matches, and what the client must be told beside."""

    matches: list[Match]
    warnings: tuple[str, ...]


class Search:
    """Answers searches on each level.

    Args:
        web: what there is.
        headers: of files.
    """

    def __init__(self, web: DicomWeb, headers: Headers) -> None:
        self._web = web
        self._headers = headers

    def studies(self, query: Query, root: str) -> Answer:
        """Studies that match; `root` is the URL of the service."""
        with reading(self._web.sessions) as session:
            rows = self._studies(session, query)
            page = rows[: query.limit]
            ids = [row.id for row in page]
            counts, kinds = queries.counts(session, ids), queries.modalities(session, ids)
            samples = queries.samples(session, ids)
        matches = []
        for row in page:
            match = self._study(row, root)
            match |= _study_numbers(counts.get(row.id, Counts()), kinds.get(row.id, set()))
            header = self._sample(samples.get((row.id, "")))
            wanted = _wanted(query, _STUDY_TAGS)
            matches.append({**json_model.picked(header, (*_SAMPLE_TAGS, *wanted)), **match})
        return _answer(matches, query, len(rows))

    def series(self, query: Query, root: str, study_uid: str = "") -> Answer:
        """Series that match, of one study or of all."""
        with reading(self._web.sessions) as session:
            rows = queries.series(
                session,
                matching.study_filters(query, study_uid),
                matching.series_keys(query),
                limit=query.limit + 1,
                offset=query.offset,
            )
            page = rows[: query.limit]
            ids = sorted({row.study.id for row in page})
            uids = [row.series_uid for row in page]
            counts = queries.series_counts(session, ids, uids)
            samples = queries.samples(session, ids, uids)
        matches = []
        for row in page:
            key = (row.study.id, row.series_uid)
            header = self._sample(samples.get(key))
            wanted = _wanted(query, (*_STUDY_TAGS, *_SERIES_TAGS))
            match = json_model.picked(header, (*_SERIES_SAMPLE_TAGS, *wanted))
            match |= _series(row, root, counts.get(key, 0))
            if not study_uid:
                match = {**self._study(row.study, root), **match}
            matches.append(match)
        return _answer(matches, query, len(rows))

    def instances(
        self, query: Query, root: str, study_uid: str = "", series_uid: str = ""
    ) -> Answer:
        """Instances that match, of one series, of one study or of all."""
        with reading(self._web.sessions) as session:
            found = queries.objects(
                session,
                matching.study_filters(query, study_uid),
                matching.object_keys(query, series_uid),
                limit=query.limit + 1,
                offset=query.offset,
            )
            page = found[: query.limit]
            ids = sorted({one.study_id for one in page})
            studies = queries.studies_by_id(session, ids)
        matches = []
        for one in page:
            study = studies[one.study_id]
            match = self._instance(one, query) | _instance_identity(one, study, root)
            if not study_uid:
                match = {**self._study(study, root), **match}
            matches.append(match)
        return _answer(matches, query, len(found))

    def _studies(self, session: Session, query: Query) -> Sequence[Study]:
        """A page and one more; unfiltered it is in the worklist's very order, if so configured."""
        by_reading = self._web.settings.order == "reading"
        limit, offset = query.limit + 1, query.offset
        if not by_reading or query.matches:
            filters = matching.study_filters(query)
            order = self._levels() if by_reading else None
            return queries.studies(session, filters, limit=limit, offset=offset, levels=order)
        order_now = ReadingOrder(session, self._web.priority, self._web.clock())
        ids = [standing.study_id for standing in order_now.part(offset, limit)]
        rows = queries.studies_by_id(session, ids)
        found = [rows[one] for one in ids if one in rows]
        if len(ids) < limit:
            behind = max(offset - order_now.total, 0)
            found += queries.read_studies(session, limit=limit - len(ids), offset=behind)
        return found

    def _levels(self) -> queries.Levels:
        policy = self._web.priority
        return queries.Levels(
            ordered={name: level.rank for name, level in policy.ordered.items()},
            otherwise=policy.unread_failure.rank,
        )

    def _study(self, row: Study, root: str) -> Match:
        level = reading_order.level_of(row.priority, row.ordered_priority, self._web.priority)
        marked = self._web.settings.mark_descriptions
        description = f"[{PRIORITIES[level]}] {row.description}" if marked else row.description
        return json_model.elements(
            {
                "SpecificCharacterSet": "ISO_IR 192",
                "StudyDate": row.study_date,
                "StudyTime": row.study_time,
                "AccessionNumber": row.accession_number,
                "InstanceAvailability": "ONLINE",
                "StudyDescription": description.strip(),
                "RetrieveURL": f"{root}/studies/{row.study_uid}",
                "PatientName": row.patient_name,
                "PatientID": row.patient_id,
                "IssuerOfPatientID": row.issuer_of_patient_id,
                "PatientBirthDate": row.patient_birth_date,
                "PatientSex": row.patient_sex,
                "StudyInstanceUID": row.study_uid,
                "RequestedProcedurePriority": PRIORITIES[level],
            }
        )

    def _instance(self, one: ObjectFound, query: Query) -> Match:
        path = self._web.file(one)
        if query.all_fields:
            return self._headers.everything(path)
        header = self._headers.usual(path)
        match = json_model.picked(header, (*_INSTANCE_TAGS, *catalog.tags_of(sorted(query.fields))))
        more = catalog.unusual(sorted(query.fields))
        return match | self._headers.of(path, more) if more else match

    def _sample(self, sample: tuple[str, str] | None) -> Match:
        return self._headers.usual(self._web.path(*sample)) if sample else {}


def _answer(matches: list[Match], query: Query, found: int) -> Answer:
    warnings = (*query.warnings, *([MORE] if found > len(matches) else []))
    return Answer([dict(sorted(match.items())) for match in matches], warnings)


def _wanted(query: Query, possible: Sequence[str]) -> tuple[str, ...]:
    if query.all_fields:
        return tuple(possible)
    asked = set(catalog.tags_of(sorted(query.fields)))
    return tuple(tag for tag in possible if tag in asked)


def _study_numbers(counts: Counts, kinds: set[str]) -> Match:
    return json_model.elements(
        {
            "ModalitiesInStudy": sorted(kind for kind in kinds if kind),
            "NumberOfStudyRelatedSeries": counts.series,
            "NumberOfStudyRelatedInstances": counts.instances,
        }
    )


def _series(row: SeriesFound, root: str, instances: int) -> Match:
    study_uid = row.study.study_uid
    values = {
        "Modality": row.modality,
        "RetrieveURL": f"{root}/studies/{study_uid}/series/{row.series_uid}",
        "StudyInstanceUID": study_uid,
        "SeriesInstanceUID": row.series_uid,
        "NumberOfSeriesRelatedInstances": instances,
    }
    known = {
        "SeriesDescription": row.description,
        "SeriesNumber": row.number,
        "BodyPartExamined": row.body_part,
    }
    # of a series that we made these stand in its objects only
    kept = {name: value for name, value in known.items() if value not in (None, "")}
    return json_model.elements(values | kept)


def _instance_identity(one: ObjectFound, study: Study, root: str) -> Match:
    url = f"{root}/studies/{study.study_uid}/series/{one.series_uid}/instances/{one.sop_uid}"
    values = {
        "SOPClassUID": one.sop_class_uid,
        "SOPInstanceUID": one.sop_uid,
        "InstanceAvailability": "ONLINE",
        "RetrieveURL": url,
        "StudyInstanceUID": study.study_uid,
        "SeriesInstanceUID": one.series_uid,
        "AvailableTransferSyntaxUID": one.transfer_syntax_uid,
    }
    if one.modality:
        values["Modality"] = one.modality
    return json_model.elements(values)


__all__ = ["Answer", "Filters", "Search"]
