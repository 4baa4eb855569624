"""An announcement in HL7 v2: ORU^R01 (preliminary), or an update of the order by ORM^O01, OMI^O23.

Everything is preliminary (OBR-25 and OBX-11 are ``P``): the receiver shows it as not verified, and
a final report replaces it. Nothing here depends on the moment of sending, so that a message that is
sent again is the same to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.delivery.announcements import Announcement, Kind, Opinion
from agent.results import sentences
from agent.settings_hl7 import Hl7Sending
from dicom_nodes.hl7 import messages
from dicom_nodes.hl7.acknowledgements import timestamp
from dicom_nodes.hl7.messages import Ref, Segment
from inference.findings import Acuity, Code, Finding, Status
from inference.report.draft import Draft

ORU, ORM, OMI = "ORU^R01", "ORM^O01", "OMI^O23"
_STRUCTURES = {ORU: "ORU_R01", ORM: "ORM_O01", OMI: "OMI_O23"}
_PRELIMINARY = "P"
#: Coding schemes that table 0396 knows by the name DICOM gives them; others are the site's own.
_SCHEMES = frozenset({"SCT", "LN", "DCM", "RADLEX"})
_ABNORMAL = {Acuity.URGENT: "AA", Acuity.ROUTINE: "A", Acuity.NORMAL: "N"}

FINDING = Code("121071", "DCM", "Finding")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
STUDY_UID = Code("110180", "DCM", "Study Instance UID")
ALGORITHM = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
DRAFT = Code("18782-3", "LN", "Radiology Study observation")
PRIORITY = Code("PRIORITY", "L", "Reading priority")
REASON = Code("PRIORITY-REASON", "L", "Reason of the reading priority")
ANALYSIS = Code("ANALYSIS", "L", "Status of the analysis")
CAUTION = Code("CAUTION", "L", "Caution")


def text(told: Announcement, settings: Hl7Sending) -> str:
    """The message, segments ended by CR."""
    kind = settings.priority_as if told.kind is Kind.PRIORITY else ORU
    segments = [_msh(told, settings, kind), _pid(told), _pv1(told)]
    match kind:
        case "ORM^O01":
            segments += [_orc(told, settings.order_control), _obr(told), *_notes(told), _zds(told)]
        case "OMI^O23":
            segments += [_orc(told, settings.order_control), _tq1(), _obr(told)]
            segments += [*_notes(told), _ipc(told)]
        case _:
            segments += [_orc(told, "RE"), _obr(told, result=True), *_notes(told)]
            segments += [_tq1()] if settings.version >= "2.5" else []
            segments += _observations(told, settings)
    _put_priority(segments, told, settings)
    messages.apply(segments, _site_fields(told, settings))
    return messages.text_of(segments)


def _msh(told: Announcement, settings: Hl7Sending, kind: str) -> Segment:
    return (
        Segment("MSH")
        .set(2, "")
        .set(3, settings.application)
        .set(4, settings.facility)
        .set(5, settings.receiving_application)
        .set(6, settings.receiving_facility)
        .set(7, timestamp(told.enqueued_at))
        .set(9, *kind.split("^"), _STRUCTURES[kind])
        .set(10, told.control_id)
        .set(11, settings.processing_id)
        .set(12, settings.version)
        .set(18, settings.charset)
    )


def _pid(told: Announcement) -> Segment:
    study = told.study
    pid = Segment("PID").set(1, "1")
    pid.set(3, study.identity.patient_id, "", "", study.identity.issuer_of_patient_id)
    return pid.set(5, *_name(study.patient_name)).set(7, study.birth_date).set(8, study.sex)


def _name(dicom: str) -> tuple[str, ...]:
    """PN: family^given^middle^prefix^suffix, alphabetic group; XPN has the last two swapped."""
    parts = [*dicom.partition("=")[0].split("^"), *[""] * 5][:5]
    return (*parts[:3], parts[4], parts[3])


def _pv1(told: Announcement) -> Segment:
    return Segment("PV1").set(2, "U").set(3, told.study.location)


def _orc(told: Announcement, control: str) -> Segment:
    study = told.study
    orc = Segment("ORC").set(1, control).set(2, study.placer_order).set(3, _filler(told))
    if control != "RE":
        orc.set(5, "SC")
    return orc.set(9, timestamp(told.enqueued_at))


def _obr(told: Announcement, *, result: bool = False) -> Segment:
    study = told.study
    obr = Segment("OBR").set(1, "1").set(2, study.placer_order).set(3, _filler(told))
    obr.set(4, *(study.procedure_code or ("IMAGING", study.procedure or "Imaging", "L")))
    obr.set(7, study.study_date + study.study_time[:6] if study.study_date else "")
    obr.set(18, study.identity.accession_number)
    if result:
        obr.set(22, timestamp(told.enqueued_at)).set(24, "RAD").set(25, _PRELIMINARY)
    return obr


def _filler(told: Announcement) -> str:
    return told.study.filler_order or told.study.identity.accession_number


def _tq1() -> Segment:
    return Segment("TQ1").set(1, "1")


def _zds(told: Announcement) -> Segment:
    return Segment("ZDS").set(1, told.study.identity.study_uid, "", "Application", "DICOM")


def _ipc(told: Announcement) -> Segment:
    study = told.study
    number = study.procedure_id or study.identity.accession_number
    ipc = Segment("IPC").set(1, study.identity.accession_number).set(2, number)
    ipc.set(3, study.identity.study_uid).set(4, number)
    return ipc.set(5, study.modalities[0] if study.modalities else "")


def _notes(told: Announcement) -> Iterator[Segment]:
    notices = [o.notice for o in told.opinions if o.notice]
    lines = [
        told.caution,
        *dict.fromkeys(notices),
        f"{told.priority.level}: {told.priority.reason}",
    ]
    for number, line in enumerate(lines, start=1):
        yield Segment("NTE").set(1, str(number)).set(2, "L").set(3, line)


def _put_priority(segments: list[Segment], told: Announcement, settings: Hl7Sending) -> None:
    code = settings.priorities[told.priority.level]
    named = {segment.name: segment for segment in segments}
    for ref in map(Ref.of, settings.priority_fields):
        segment = named.get(ref.segment)
        if segment is not None and ref.component:
            segment.put(ref, code)
        elif segment is not None:
            segment.set(ref.field, code, told.priority.level, "HL70485")


def _site_fields(told: Announcement, settings: Hl7Sending) -> dict[Ref, str]:
    study = told.study
    known = {
        "accession": study.identity.accession_number,
        "filler_order": _filler(told),
        "issuer": study.identity.issuer_of_patient_id,
        "level": told.priority.level.value,
        "location": study.location,
        "modality": study.modalities[0] if study.modalities else "",
        "patient_id": study.identity.patient_id,
        "placer_order": study.placer_order,
        "priority": settings.priorities[told.priority.level],
        "procedure": study.procedure,
        "procedure_id": study.procedure_id,
        "reason": told.priority.reason,
        "study_uid": study.identity.study_uid,
    }
    return {Ref.of(name): value.format(**known) for name, value in settings.fields.items()}


def _observations(told: Announcement, settings: Hl7Sending) -> list[Segment]:
    """OBX segments, numbered; the sub-id groups what belongs to one finding or one model."""
    level = told.priority.level
    found = [
        _obx("CE", PRIORITY, settings.priorities[level], level, "HL70485"),
        _obx("TX", REASON, told.priority.reason),
        _obx("ST", STUDY_UID, told.study.identity.study_uid),
        _obx("TX", CAUTION, told.caution),
    ]
    found = [o.set(4, "1") for o in found]
    sub_id = 1
    for opinion in told.opinions:
        sub_id += 1
        found += [o.set(4, str(sub_id)) for o in _model(opinion)]
        for finding in opinion.findings:
            sub_id += 1
            found += [o.set(4, str(sub_id)) for o in _finding(finding, opinion, settings)]
    if told.draft:
        drafted = _draft(told.draft, unsupported=told.unsupported)
        found += [o.set(4, str(sub_id + 1)) for o in drafted]
    return [obx.set(1, str(n)) for n, obx in enumerate(found, start=1)]


def _model(opinion: Opinion) -> Iterator[Segment]:
    yield _obx("ST", ALGORITHM, opinion.model)
    yield _obx("ST", ALGORITHM_VERSION, opinion.version)
    said = {
        Status.SUCCEEDED: f"succeeded: {len(opinion.findings)} findings above threshold",
        Status.PARTIAL: f"partial: {opinion.reason}",
    }.get(opinion.status, f"not analysed ({opinion.status}): {opinion.reason}")
    yield _obx("TX", ANALYSIS, said)


def _finding(finding: Finding, opinion: Opinion, settings: Hl7Sending) -> Iterator[Segment]:
    code = finding.code
    scheme = code.scheme if code.scheme in _SCHEMES else settings.local_scheme
    method = (opinion.model, opinion.version)
    yield (
        _obx("CE", FINDING, code.value, finding.display, scheme)
        .set(8, _ABNORMAL[finding.acuity])
        .set(17, *method)
    )
    yield (
        _obx("NM", CERTAINTY, f"{finding.probability * 100:.1f}")
        .set(6, "%", "percent", "UCUM")
        .set(17, *method)
    )


def _draft(draft: Draft, *, unsupported: bool) -> Iterator[Segment]:
    """The sentences of a draft; what the guard found unsupported only where the site wants it."""
    kept = sentences.told(draft, unsupported=unsupported)
    left_out = len(draft.sentences) - len(kept)
    yield _obx("TX", DRAFT, f"DRAFT, not verified, written by {draft.model}: {draft.exam_type}")
    for sentence in kept:
        yield _obx("TX", DRAFT, sentences.marked(sentence))
    if draft.unremarkable:
        yield _obx("TX", DRAFT, "No finding above threshold. This is not a negative report.")
    if left_out:
        yield _obx("TX", DRAFT, f"{left_out} sentences without support were left out.")


def _obx(value_type: str, what: Code, *value: str) -> Segment:
    obx = Segment("OBX").set(2, value_type).set(3, what.value, what.meaning, what.scheme)
    return obx.set(5, *value).set(11, _PRELIMINARY)
