"""HL7 v2 messages as a RIS sends them, and announcements as the outbox makes them."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

from factories import rows

from agent.delivery.announcements import Announcement, Kind, Opinion, Priority, Subject
from agent.delivery.identity import Identity
from agent.settings import Level
from dicom_nodes.hl7.messages import Segment, text_of
from inference.findings import Acuity, Status
from inference.report.draft import Draft, Sentence, Source, Verdict

_numbers = itertools.count(1)


def header(
    message_type: str = "ORM^O01", control_id: str | None = None, version: str = "2.5.1"
) -> Segment:
    """An MSH of the RIS."""
    msh = Segment("MSH").set(2, "").set(3, "RIS").set(4, "HOSP").set(5, "WLAGENT").set(6, "RAD")
    msh.set(7, "20261123083000").set(9, *message_type.split("^"))
    msh.set(10, control_id or f"RIS{next(_numbers):05d}").set(11, "P").set(12, version)
    return msh.set(18, "UNICODE UTF-8")


def patient(patient_id: str = "PAT1", issuer: str = "HOSP", name: str = "Example^Ada") -> Segment:
    """A PID."""
    pid = Segment("PID").set(3, patient_id, "", "", issuer).set(5, *name.split("^"))
    return pid.set(7, "19600101").set(8, "F")


def order(
    accession: str = "ACC1",
    *,
    patient_id: str = "PAT1",
    priority: str = "S",
    location: str = "ED",
    reason: str = "fall, anticoagulated",
    study_uid: str = "",
    control_id: str | None = None,
    control: str = "NW",
) -> bytes:
    """ORM^O01 for a head CT."""
    segments = [
        header("ORM^O01", control_id),
        patient(patient_id),
        Segment("PV1").set(2, "E").set(3, location),
        Segment("ORC").set(1, control).set(2, "P1").set(3, "F1").set(7, *[""] * 5, priority),
        Segment("OBR")
        .set(1, "1")
        .set(4, "CTHEAD", "CT HEAD", "L")
        .set(13, reason)
        .set(18, accession),
    ]
    if study_uid:
        segments.append(Segment("ZDS").set(1, study_uid, "", "Application", "DICOM"))
    return text_of(segments).encode()


def merge(prior: str, surviving: str, event: str = "A40", control_id: str | None = None) -> bytes:
    """ADT that gives a patient another ID."""
    segments = [
        header(f"ADT^{event}", control_id),
        patient(surviving),
        Segment("MRG").set(1, prior, "", "", "HOSP"),
    ]
    return text_of(segments).encode()


def report(
    accession: str = "ACC1", patient_id: str = "PAT1", *, status: str = "F", text: str = "No bleed."
) -> bytes:
    """ORU^R01 of a signed report, a line a segment."""
    obr = Segment("OBR").set(1, "1").set(4, "CTHEAD").set(18, accession).set(25, status)
    lines = [
        Segment("OBX").set(1, str(n)).set(2, "TX").set(3, "GDT").set(5, line).set(11, status)
        for n, line in enumerate(text.splitlines(), start=1)
    ]
    return text_of([header("ORU^R01"), patient(patient_id), obr, *lines]).encode()


def announcement(kind: Kind = Kind.PRIORITY, **values: Any) -> Announcement:
    """A bleed was found in the head of a patient with an unusual name."""
    identity = Identity("1.2.3.4", "PAT|1", "HOSP", "ACC&1")
    bleed = rows.finding(display="Intracranial hemorrhage", probability=0.931)
    return Announcement(
        **{
            "kind": kind,
            "control_id": "ABCDEFGHIJ2345672345",
            "enqueued_at": dt.datetime(2026, 11, 23, 8, 30, tzinfo=dt.UTC),
            "attempt": 1,
            "study_key": "k" * 32,
            "revision": 1,
            "study": Subject(
                identity=identity,
                patient_name="Müller^Ada^B^Dr^III=X=Y",
                birth_date="19600101",
                sex="F",
                modalities=("CT",),
                study_date="20261123",
                study_time="081500.5",
                procedure="CT HEAD",
                procedure_code=("CTHEAD", "CT HEAD", "L"),
                placer_order="P1",
                filler_order="F1",
                procedure_id="RP1",
                indication="fall",
                location="ED",
            ),
            "identity": identity,
            "priority": Priority(Level.STAT, 0.93, "Intracranial hemorrhage 93%", "ROUTINE"),
            "opinions": (
                Opinion(
                    analysis_id="a" * 32,
                    model="demo-head",
                    version="1.0.0",
                    digest="d" * 64,
                    notice="Demonstration model.",
                    status=Status.SUCCEEDED,
                    reason="",
                    findings=(bleed,),
                    looked_for=(bleed.display,),
                    at=rows.NOW,
                ),
            ),
            **values,
        }
    )


def draft(*sentences: str, unsupported: str = "") -> Draft:
    """A template's draft."""
    said = [Sentence(s, Verdict.SUPPORTED) for s in sentences]
    said += [Sentence(unsupported, Verdict.UNSUPPORTED, "no finding")] if unsupported else []
    return Draft("CT head", tuple(said), Source.TEMPLATE, "template 1")


__all__ = ["Acuity", "announcement", "draft", "header", "merge", "order", "patient", "report"]
