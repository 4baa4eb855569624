"""An audit event as DICOM audit message (PS3.15 A.5, DICOM schema) and as syslog line. Pure."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from agent.audit.kinds import Kind
from db.models import AuditEvent

BOM = b"\xef\xbb\xbf"
#: Facility 10 (security), severity 5 (notice): RFC 5424, as PS3.15 A.6 asks.
PRIORITY = 85
APP_NAME = "worklist-agent"
MESSAGE_ID = "DICOM+RFC3881"
SERVICE = APP_NAME

Code = tuple[str, str]
"""Value and meaning, scheme DCM."""

ACTIVITY: Code = ("110100", "Application Activity")
LOG_USED: Code = ("110101", "Audit Log Used")
ACCESSED: Code = ("110103", "DICOM Instances Accessed")
TRANSFERRED: Code = ("110104", "DICOM Instances Transferred")
EXPORT: Code = ("110106", "Export")
PROCEDURE: Code = ("110111", "Procedure Record")
QUERY: Code = ("110112", "Query")
ALERT: Code = ("110113", "Security Alert")
AUTHENTICATION: Code = ("110114", "User Authentication")


@dataclass(frozen=True)
class Dicom:
    """Which DICOM event a kind is.

    Attributes:
        action: EventActionCode: create, read, update, delete, execute.
    """

    event: Code
    action: str
    type: Code | None = None


#: PS3.15 A.5.3.
EVENTS: dict[Kind, Dicom] = {
    Kind.STARTED: Dicom(ACTIVITY, "E", ("110120", "Application Start")),
    Kind.STOPPED: Dicom(ACTIVITY, "E", ("110121", "Application Stop")),
    Kind.CONFIGURATION_CHANGED: Dicom(ALERT, "E", ("110131", "Software Configuration")),
    Kind.LOGIN: Dicom(AUTHENTICATION, "E", ("110122", "Login")),
    Kind.LOGIN_FAILED: Dicom(AUTHENTICATION, "E", ("110122", "Login")),
    Kind.LOGOUT: Dicom(AUTHENTICATION, "E", ("110123", "Logout")),
    Kind.REFUSED: Dicom(ALERT, "E", ("110132", "Use of Restricted Function")),
    Kind.USERS_CHANGED: Dicom(ALERT, "E", ("110137", "User security Attributes Changed")),
    Kind.VIEWED: Dicom(ACCESSED, "R"),
    Kind.SEARCHED: Dicom(QUERY, "E"),
    Kind.RETRIEVED: Dicom(TRANSFERRED, "R"),
    Kind.STORED: Dicom(TRANSFERRED, "C"),
    Kind.CHANGED: Dicom(PROCEDURE, "U"),
    Kind.PRIORITY_CHANGED: Dicom(PROCEDURE, "U"),
    Kind.EXPORTED: Dicom(EXPORT, "R"),
    Kind.AUDIT_USED: Dicom(LOG_USED, "R"),
}

APPLICATION: Code = ("110150", "Application")
LAUNCHER: Code = ("110151", "Application Launcher")
DESTINATION: Code = ("110152", "Destination Role ID")
SOURCE: Code = ("110153", "Source Role ID")


@dataclass(frozen=True)
class Source:
    """Who says so: AuditSourceID, site, AE title, host name and process id of this agent."""

    source_id: str
    site: str
    ae_title: str
    host: str
    process_id: int


def xml(event: AuditEvent, source: Source) -> bytes:
    """The audit message; no patient's name is in it."""
    kind = Kind(event.kind)
    dicom = EVENTS[kind]
    root = ET.Element("AuditMessage")
    _identification(root, event, dicom)
    if dicom.event != ACTIVITY:
        _person(root, event, _role_of_person(kind))
    _service(root, source, _role_of_service(kind))
    if dicom.event == ACTIVITY:
        _person(root, event, LAUNCHER)
    attributes = {"AuditSourceID": source.source_id}
    if source.site:
        attributes = {"AuditEnterpriseSiteID": source.site, **attributes}
    where = ET.SubElement(root, "AuditSourceIdentification", attributes)
    # 4 = application server process (PS3.15 A.5.2.5)
    ET.SubElement(where, "AuditSourceTypeCode", {"csd-code": "4"})
    _objects(root, event, kind)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=False)
    return written


def syslog(event: AuditEvent, source: Source) -> bytes:
    """The message in RFC 5424 form, without the framing of a transport."""
    at = _time(event.at)
    host = "".join(c for c in source.host if 33 <= ord(c) <= 126)[:255] or "-"
    header = f"<{PRIORITY}>1 {at} {host} {APP_NAME} {source.process_id} {MESSAGE_ID} - "
    return header.encode("ascii") + BOM + xml(event, source)


def _identification(root: ET.Element, event: AuditEvent, dicom: Dicom) -> None:
    attributes = {
        "EventActionCode": dicom.action,
        "EventDateTime": _time(event.at),
        "EventOutcomeIndicator": str(event.outcome),
    }
    element = ET.SubElement(root, "EventIdentification", attributes)
    _code(element, "EventID", dicom.event)
    if dicom.type:
        _code(element, "EventTypeCode", dicom.type)
    if event.detail:
        ET.SubElement(element, "EventOutcomeDescription").text = _printable(event.detail)


def _person(root: ET.Element, event: AuditEvent, role: Code | None) -> None:
    attributes = {"UserID": _printable(event.who) or "unknown", "UserIsRequestor": "true"}
    attributes |= _access_point(event.address)
    element = ET.SubElement(root, "ActiveParticipant", attributes)
    if role:
        _code(element, "RoleIDCode", role)
    if event.role:
        own = {"csd-code": event.role, "codeSystemName": "99WLAGENT", "originalText": event.role}
        ET.SubElement(element, "RoleIDCode", own)


def _service(root: ET.Element, source: Source, role: Code | None) -> None:
    attributes = {
        "UserID": f"{source.process_id}@{source.host}",
        "AlternativeUserID": f"AETITLES={source.ae_title}",
        "UserName": SERVICE,
        "UserIsRequestor": "false",
        **_access_point(source.host),
    }
    element = ET.SubElement(root, "ActiveParticipant", attributes)
    if role:
        _code(element, "RoleIDCode", role)


def _role_of_person(kind: Kind) -> Code | None:
    if kind is Kind.STORED:
        return SOURCE
    return DESTINATION if kind in {Kind.RETRIEVED, Kind.EXPORTED} else None


def _role_of_service(kind: Kind) -> Code | None:
    if kind in {Kind.STARTED, Kind.STOPPED}:
        return APPLICATION
    if kind is Kind.STORED:
        return DESTINATION
    return SOURCE if kind in {Kind.RETRIEVED, Kind.EXPORTED} else None


def _objects(root: ET.Element, event: AuditEvent, kind: Kind) -> None:
    if kind is Kind.SEARCHED:
        # The query itself may hold a name; which door it came through is said instead.
        element = _object(root, "worklist", "2", "24", ("110181", "SOP Class UID"))
        query = ET.SubElement(element, "ParticipantObjectQuery")
        query.text = base64.b64encode(event.detail.encode()).decode()
    elif kind is Kind.AUDIT_USED:
        element = _object(root, "audit_event", "2", "13", None)
        ET.SubElement(element, "ParticipantObjectName").text = "Security Audit Log"
    if event.study_uid:
        _object(root, event.study_uid, "2", "3", ("110180", "Study Instance UID"))
    if event.patient_id:
        _object(root, _printable(event.patient_id), "1", "1", ("2", "Patient Number"))


def _object(root: ET.Element, ident: str, kind: str, role: str, code: Code | None) -> ET.Element:
    attributes = {
        "ParticipantObjectID": ident,
        "ParticipantObjectTypeCode": kind,
        "ParticipantObjectTypeCodeRole": role,
    }
    element = ET.SubElement(root, "ParticipantObjectIdentification", attributes)
    scheme = "DCM" if code and len(code[0]) > 2 else "RFC-3881"
    _code(element, "ParticipantObjectIDTypeCode", code or ("12", "URI"), scheme)
    return element


def _code(parent: ET.Element, tag: str, code: Code, scheme: str = "DCM") -> None:
    value, meaning = code
    attributes = {"csd-code": value, "codeSystemName": scheme, "originalText": meaning}
    ET.SubElement(parent, tag, attributes)


def _access_point(address: str) -> dict[str, str]:
    """NetworkAccessPointTypeCode: 1 a name, 2 an IP address."""
    if not address:
        return {}
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return {"NetworkAccessPointID": _printable(address), "NetworkAccessPointTypeCode": "1"}
    return {"NetworkAccessPointID": address, "NetworkAccessPointTypeCode": "2"}


def _time(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _printable(text: str) -> str:
    """Without control characters, which XML 1.0 has no way to write."""
    return "".join(c for c in text if c.isprintable())
