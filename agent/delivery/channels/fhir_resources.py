"""An announcement as FHIR R4 resources: Task for the reading, DiagnosticReport for the result.

Patients, orders and studies are named by business identifier (logical references), so that nothing
has to be looked up to say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.delivery.announcements import Announcement, Opinion
from agent.results import sentences
from agent.settings_messages import FhirSending
from agent.workitems import content
from inference.findings import Code, Status

Resource = dict[str, Any]

#: FHIR's order of urgency (request-priority), most urgent first.
URGENCY = ("stat", "asap", "urgent", "routine")
#: A Task that nobody has begun, and a report that nobody has signed, are ours to change.
OPEN_TASKS = frozenset({"draft", "requested", "received", "accepted", "ready"})
OPEN_REPORTS = frozenset({"registered", "partial", "preliminary"})

_OID = "urn:oid:"
_SYSTEMS: Mapping[str, str] = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "RADLEX": "http://radlex.org",
}
_V2_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"


def identifier(told: Announcement, settings: FhirSending, part: str) -> Resource:
    """By which a repeat of this study's resource is recognised."""
    oid = content.uid_of(told.study.identity.study_uid, f"fhir {part}")
    return {"system": settings.identifier_system, "value": f"{_OID}{oid}"}


def task(told: Announcement, settings: FhirSending) -> Resource:
    """The reading task; required by R4: status and intent."""
    made: Resource = _clean(
        {
            "resourceType": "Task",
            "identifier": [identifier(told, settings, "task")],
            "status": "requested",
            "intent": "order",
            "priority": settings.priorities[told.priority.level],
            "code": {
                "coding": [
                    {
                        "system": "http://hl7.org/fhir/CodeSystem/task-code",
                        "code": "fulfill",
                        "display": "Fulfill the focal request",
                    }
                ],
                "text": f"Read {told.study.procedure}".strip(),
            },
            "description": f"{told.priority.level}: {told.priority.reason}",
            "focus": _order(told, settings),
            "for": _patient(told, settings),
            "authoredOn": _instant(told),
            "lastModified": _instant(told),
            "requester": {"display": "Worklist Agent"},
            "reasonCode": {"text": told.priority.reason},
            "note": [{"text": text} for text in _notices(told)],
            "input": [{"type": {"text": "imaging study"}, "valueReference": _imaging_study(told)}],
        }
    )
    return made


def report(told: Announcement, settings: FhirSending) -> Resource:
    """The preliminary report; required by R4: status and code."""
    made: Resource = _clean(
        {
            "resourceType": "DiagnosticReport",
            "identifier": [identifier(told, settings, "report")],
            "status": "preliminary",
            "category": [
                {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/v2-0074",
                            "code": "RAD",
                            "display": "Radiology",
                        }
                    ]
                }
            ],
            "code": {
                "coding": [
                    {
                        "system": "http://loinc.org",
                        "code": "18748-4",
                        "display": "Diagnostic imaging study",
                    }
                ],
                "text": told.study.procedure or "Diagnostic imaging study",
            },
            "basedOn": [order] if (order := _order(told, settings)) else [],
            "subject": _patient(told, settings),
            "issued": _instant(told),
            "imagingStudy": [_imaging_study(told)],
            "conclusion": "\n".join(_conclusion(told)),
            "conclusionCode": [_concept(f.code, f.display) for f in told.findings],
        }
    )
    return made


def _order(told: Announcement, settings: FhirSending) -> Resource | None:
    accession = told.study.identity.accession_number
    if not accession:
        return None
    return {
        "type": "ServiceRequest",
        "identifier": {
            "type": {"coding": [{"system": _V2_TYPES, "code": "ACSN"}]},
            "system": settings.accession_system,
            "value": accession,
        },
    }


def _patient(told: Announcement, settings: FhirSending) -> Resource | None:
    who = told.study.identity
    if not who.patient_id:
        return None
    issuer = "" if settings.patient_system else who.issuer_of_patient_id
    return {
        "type": "Patient",
        "identifier": {
            "type": {"coding": [{"system": _V2_TYPES, "code": "MR"}]},
            "system": settings.patient_system,
            "value": who.patient_id,
            "assigner": {"display": issuer} if issuer else None,
        },
    }


def _imaging_study(told: Announcement) -> Resource:
    uid = told.study.identity.study_uid
    return {
        "type": "ImagingStudy",
        "identifier": {"system": "urn:dicom:uid", "value": f"{_OID}{uid}"},
    }


def _conclusion(told: Announcement) -> list[str]:
    lines = [told.caution, f"Reading priority {told.priority.level}: {told.priority.reason}"]
    for opinion in told.opinions:
        lines += _of_model(opinion)
    if told.draft:
        lines.append(f"DRAFT, not verified, written by {told.draft.model}:")
        kept = sentences.told(told.draft, unsupported=told.unsupported)
        lines += [sentences.marked(sentence) for sentence in kept]
        left_out = len(told.draft.sentences) - len(kept)
        lines += [f"{left_out} sentences without support were left out."] if left_out else []
    return lines


def _of_model(opinion: Opinion) -> list[str]:
    name = f"{opinion.model} {opinion.version}"
    if opinion.status not in {Status.SUCCEEDED, Status.PARTIAL}:
        return [f"{name}: not analyzed ({opinion.reason or opinion.status})"]
    found = [f"{f.display} {f.probability:.0%}" for f in opinion.findings]
    said = ", ".join(found) or "no finding above threshold; this is not a negative report"
    partly = f" (in part: {opinion.reason})" if opinion.status is Status.PARTIAL else ""
    return [f"{name}{partly}: {said}"]


def _concept(code: Code, display: str) -> Resource:
    system = _SYSTEMS.get(code.scheme)
    if system is None:  # a code of the pack's own has no system that others know
        return {"text": display}
    return {
        "coding": [{"system": system, "code": code.value, "display": code.meaning or display}],
        "text": display,
    }


def _notices(told: Announcement) -> list[str]:
    return [told.caution, *dict.fromkeys(o.notice for o in told.opinions if o.notice)]


def _instant(told: Announcement) -> str:
    return told.enqueued_at.isoformat(timespec="milliseconds")


def _clean(value: Any) -> Any:
    """Without what is empty: FHIR allows no empty strings, arrays or objects."""
    if isinstance(value, dict):
        made = {k: _clean(v) for k, v in value.items()}
        return {k: v for k, v in made.items() if v not in (None, "", [], {})}
    if isinstance(value, list):
        return [one for one in map(_clean, value) if one not in (None, "", [], {})]
    return value
