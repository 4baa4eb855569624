"""Every audit event becomes a message of the DICOM schema (PS3.15 A.5) that names no patient."""

from __future__ import annotations

import datetime as dt
import re
from xml.etree import ElementTree as ET

import pytest

from agent.audit import messages
from agent.audit.kinds import Kind, Occurrence, Outcome
from agent.audit.messages import Source
from db.models import AuditEvent

SOURCE = Source("agent-01", "Hospital", "WLAGENT", "node1", 4711)
AT = dt.datetime(2026, 11, 23, 8, 0, 0, 123456, tzinfo=dt.UTC)

CODE = {"csd-code", "codeSystemName", "originalText"}
#: element -> (required attributes, optional attributes, children in their order)
SCHEMA: dict[str, tuple[set[str], set[str], list[str]]] = {
    "AuditMessage": (
        set(),
        set(),
        [
            "EventIdentification",
            "ActiveParticipant",
            "AuditSourceIdentification",
            "ParticipantObjectIdentification",
        ],
    ),
    "EventIdentification": (
        {"EventActionCode", "EventDateTime", "EventOutcomeIndicator"},
        set(),
        ["EventID", "EventTypeCode", "EventOutcomeDescription"],
    ),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        ["RoleIDCode"],
    ),
    "AuditSourceIdentification": (
        {"AuditSourceID"},
        {"AuditEnterpriseSiteID"},
        ["AuditSourceTypeCode"],
    ),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID", "ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"},
        set(),
        ["ParticipantObjectIDTypeCode", "ParticipantObjectName", "ParticipantObjectQuery"],
    ),
    "EventID": (CODE, set(), []),
    "EventTypeCode": (CODE, set(), []),
    "RoleIDCode": (CODE, set(), []),
    "ParticipantObjectIDTypeCode": (CODE, set(), []),
    "AuditSourceTypeCode": ({"csd-code"}, set(), []),
    "EventOutcomeDescription": (set(), set(), []),
    "ParticipantObjectName": (set(), set(), []),
    "ParticipantObjectQuery": (set(), set(), []),
}


def _event(kind: Kind, **values: object) -> AuditEvent:
    return AuditEvent(
        **{
            "at": AT,
            "kind": kind,
            "who": "rad",
            "role": "radiologist",
            "address": "10.1.2.3",
            "study_uid": "1.2.3",
            "study_key": "abc",
            "patient_id": "PAT1",
            "detail": "GET /studies/{reference}",
            "outcome": Outcome.SUCCESS,
            **values,
        }
    )


def _check(element: ET.Element) -> None:
    required, optional, children = SCHEMA[element.tag]
    assert required <= set(element.keys()) <= required | optional, element.tag
    order = [children.index(child.tag) for child in element]
    assert order == sorted(order), f"{element.tag}: children out of order"
    for child in element:
        _check(child)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_makes_a_message_of_the_schema(kind: Kind):
    """Elements, attributes and order, with and without a study."""
    for values in ({}, {"study_uid": "", "patient_id": "", "address": "", "detail": ""}):
        root = ET.fromstring(messages.xml(_event(kind, **values), SOURCE))

        _check(root)
        requestors = [p.get("UserIsRequestor") for p in root.findall("ActiveParticipant")]
        assert sorted(filter(None, requestors)) == ["false", "true"]
        assert root.find("EventIdentification/EventID").get("codeSystemName") == "DCM"


def test_a_look_says_who_at_what_from_where():
    """Study and patient as the standard's objects 2/3 and 1/1."""
    root = ET.fromstring(messages.xml(_event(Kind.VIEWED), SOURCE))

    event = root.find("EventIdentification")
    assert event.get("EventActionCode") == "R"
    assert event.get("EventDateTime") == "2026-11-23T08:00:00.123Z"
    assert event.find("EventID").get("csd-code") == "110103"
    person = root.find("ActiveParticipant[@UserIsRequestor='true']")
    assert (person.get("UserID"), person.get("NetworkAccessPointID")) == ("rad", "10.1.2.3")
    objects = [
        (
            o.get("ParticipantObjectID"),
            o.get("ParticipantObjectTypeCode"),
            o.get("ParticipantObjectTypeCodeRole"),
            o[0].get("csd-code"),
        )
        for o in root.findall("ParticipantObjectIdentification")
    ]
    assert objects == [("1.2.3", "2", "3", "110180"), ("PAT1", "1", "1", "2")]


def test_a_line_is_rfc_5424_with_bom():
    """Facility 10, severity 5, message id as PS3.15 A.6 asks."""
    line = messages.syslog(_event(Kind.LOGIN), SOURCE)

    header = rb"<85>1 2026-11-23T08:00:00\.123Z node1 worklist-agent 4711 DICOM\+RFC3881 - "
    assert re.match(header + b"\xef\xbb\xbf<AuditMessage>", line)
    assert b"\n" not in line


def test_control_characters_of_a_sender_make_no_broken_xml():
    """Patient IDs come from outside."""
    event = _event(Kind.VIEWED, patient_id="A\x00B\x1b<&>", who='x" y="')

    root = ET.fromstring(messages.xml(event, SOURCE))

    assert root.findall("ParticipantObjectIdentification")[1].get("ParticipantObjectID") == "AB<&>"


def test_an_occurrence_has_no_place_for_a_name():
    """Who, role, from where, study, our own words: that is all."""
    assert set(Occurrence.__dataclass_fields__) == {
        "kind",
        "who",
        "role",
        "address",
        "study",
        "detail",
        "outcome",
    }
