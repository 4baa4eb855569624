"""From a message to what it asks of us, by the site's field mapping. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.settings_hl7 import Hl7Settings
from dicom_nodes.hl7.errors import Hl7Missing, Hl7Unsupported
from dicom_nodes.hl7.messages import Message, Ref

#: Message type -> events that we read; an empty event is taken for the only one.
EVENTS: Mapping[str, Sequence[str]] = {
    "ORM": ("O01",),
    "OMI": ("O23",),
    "ADT": ("A08", "A34", "A40", "A47"),
    "ORU": ("R01",),
}
MERGES = ("A34", "A40", "A47")
#: Result status (table 0123) of a report that a physician signed.
SIGNED = ("F", "C")
_UID = re.compile(r"^[0-9]+(\.[0-9]+)*$")
_VERSION = re.compile(r"^2\.\d")


@dataclass(frozen=True)
class PatientRef:
    """A patient by ID and issuer, in the words of the images."""

    patient_id: str
    issuer: str


@dataclass(frozen=True)
class OrderValues:
    """One order; empty = the message does not say."""

    patient: PatientRef
    accession_number: str
    study_uid: str
    procedure_id: str
    placer_order: str
    filler_order: str
    procedure_code: str
    indication: str
    priority: str
    location: str
    status: str


@dataclass(frozen=True)
class Merge:
    """The prior patient is the surviving one from now on."""

    prior: PatientRef
    surviving: PatientRef
    event: str


@dataclass(frozen=True)
class Demographics:
    """Name, birth date and sex of a patient, in DICOM's forms; empty = not said."""

    patient: PatientRef
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True)
class FinalReport:
    """A signed report of one examination."""

    patient: PatientRef
    accession_number: str
    study_uid: str
    text: str
    reader: str


Action = OrderValues | Merge | Demographics | FinalReport


def refuse(message_type: str, event: str, version: str, processing: str, s: Hl7Settings) -> None:
    """Refuse what we have no use for, before anything else is read.

    Raises:
        Hl7Unsupported: type, event, version or processing id.
    """
    if not _VERSION.match(version):
        raise Hl7Unsupported("MSH-12 is no version 2.x", "203")
    if processing not in s.processing_ids:
        allowed = ", ".join(s.processing_ids)
        raise Hl7Unsupported(f"MSH-11 is not among hl7.processing_ids ({allowed})", "202")
    if message_type not in EVENTS:
        raise Hl7Unsupported(f"message types taken: {', '.join(EVENTS)}", "200")
    known = EVENTS[message_type]
    if event not in known and (event or len(known) > 1):
        raise Hl7Unsupported(f"events of {message_type} taken: {', '.join(known)}", "201")


def actions(message: Message, settings: Hl7Settings) -> list[Action]:
    """What the message asks for; empty when there is nothing to do (a preliminary report).

    Raises:
        Hl7Missing: a field that we cannot do without is empty; names it.
    """
    match message.get("MSH-9.1").upper():
        case "ADT" if message.get("MSH-9.2").upper() in MERGES:
            return list(_merges(message, settings))
        case "ADT":
            return [_demographics(message, settings)]
        case "ORU":
            return list(_reports(message, settings))
        case _:
            return list(_orders(message, settings))


def _orders(message: Message, settings: Hl7Settings) -> Iterator[OrderValues]:
    patient = _patient(message, settings, "PID")
    groups = list(_groups(message))
    if not groups:
        raise Hl7Missing("the order has no ORC or OBR segment")
    for group in groups:
        order = _order(_Group(message, group), patient, settings)
        if not order.accession_number and not order.study_uid:
            raise Hl7Missing(
                "the order names neither accession number nor study; see hl7.fields.accession "
                f"({', '.join(settings.fields.accession)})"
            )
        yield order


def _order(group: _Group, patient: PatientRef, settings: Hl7Settings) -> OrderValues:
    names = settings.fields
    return OrderValues(
        patient=patient,
        accession_number=group.first(names.accession),
        study_uid=_uid(group.first(names.study_uid)),
        procedure_id=group.first(names.procedure_id),
        placer_order=group.first(names.placer_order),
        filler_order=group.first(names.filler_order),
        procedure_code="^".join(group.composite(names.procedure_code)),
        indication=group.first(names.indication),
        priority=_priority(group.first(names.priority), settings),
        location=" ".join(c for c in group.composite(names.location) if c),
        status=group.first(("ORC-1",))[:16],
    )


def _uid(text: str) -> str:
    """A UID (PS3.5 9.1); anything else names no study."""
    return text if len(text) <= 64 and _UID.match(text) else ""


def _priority(code: str, settings: Hl7Settings) -> str:
    """The site's term; a code nobody mapped stays as it is, for [priority.ordered] may name it."""
    return settings.priorities.get(code, settings.priorities.get(code.upper(), code.upper()))[:16]


def _merges(message: Message, settings: Hl7Settings) -> Iterator[Merge]:
    if not message.count("MRG"):
        raise Hl7Missing("the merge has no MRG segment")
    for n in range(1, message.count("MRG") + 1):
        yield Merge(
            prior=_patient(message, settings, "MRG", n),
            surviving=_patient(message, settings, "PID", n),
            event=message.get("MSH-9.2").upper(),
        )


def _demographics(message: Message, settings: Hl7Settings) -> Demographics:
    family, given, middle, suffix, prefix = (message.get(Ref("PID", 5, n)) for n in range(1, 6))
    name = "^".join((family, given, middle, prefix, suffix)).rstrip(
        "^"
    )  # PS3.5 6.2.1 has its order
    born = message.get("PID-7")[:8]
    return Demographics(
        patient=_patient(message, settings, "PID"),
        name=name,
        birth_date=born if len(born) == 8 and born.isdecimal() else "",
        sex={"M": "M", "F": "F", "O": "O", "A": "O"}.get(message.get("PID-8").upper(), ""),
    )


def _reports(message: Message, settings: Hl7Settings) -> Iterator[FinalReport]:
    patient = _patient(message, settings, "PID")
    for indices in _groups(message):
        group = _Group(message, indices)
        if group.first(("OBR-25",)).upper() not in SIGNED:
            continue
        order = _order(group, patient, settings)
        text = "\n".join(group.texts())
        if not text:
            raise Hl7Missing("the report has no text (OBX-5)")
        yield FinalReport(
            patient=patient,
            accession_number=order.accession_number,
            study_uid=order.study_uid,
            text=text,
            reader=" ".join(c for c in group.subcomponents("OBR", 32) if c),
        )


def _patient(message: Message, settings: Hl7Settings, segment: str, n: int = 1) -> PatientRef:
    number = {"PID": 3, "MRG": 1}[segment]
    count = message.repetitions(Ref(segment, number), n)
    found = [
        (message.get(Ref(segment, number, 1), n, r), message.get(Ref(segment, number, 4), n, r))
        for r in range(1, count + 1)
    ]
    wanted = settings.patient_authority
    ours = [one for one in found if one[0] and (not wanted or one[1] == wanted)]
    if not ours:
        where = f"{segment}-{number}" + (f" of authority {wanted!r}" if wanted else "")
        raise Hl7Missing(f"the message has no patient ID ({where})")
    patient_id, authority = ours[0]
    return PatientRef(patient_id, settings.issuers.get(authority, authority))


@dataclass(frozen=True)
class _Indices:
    """Which occurrences of each segment belong to one order."""

    of: Mapping[str, tuple[int, ...]]
    shared: frozenset[str]
    """Segments before the first order (PID, PV1, the site's own): of all orders."""


def _groups(message: Message) -> Iterator[_Indices]:
    """Split a message into its orders: each begins with ORC, or with OBR where there is none."""
    seen: dict[str, int] = {}
    shared: frozenset[str] = frozenset()
    current: dict[str, tuple[int, ...]] | None = None
    for name in message.segments:
        seen[name] = seen.get(name, 0) + 1
        if name == "ORC" or (name == "OBR" and (current is None or "OBR" in current)):
            if current is not None:
                yield _Indices(current, shared)
            else:
                shared = frozenset(seen) - {name}
            current = {}
        if current is not None:
            current[name] = (*current.get(name, ()), seen[name])
    if current is not None:
        yield _Indices(current, shared)


@dataclass(frozen=True)
class _Group:
    """One order of a message, and what is shared by all of them."""

    message: Message
    indices: _Indices

    def first(self, names: Sequence[str]) -> str:
        """The first of these places that is filled."""
        for name in names:
            ref = Ref.of(name)
            value = self.message.get(ref, self._occurrence(ref.segment))
            if value:
                return value
        return ""

    def composite(self, names: Sequence[str]) -> list[str]:
        """All components of the first of these fields that is filled."""
        for name in names:
            ref = Ref.of(name)
            found = self.message.components(ref, self._occurrence(ref.segment))
            if found:
                return found
        return []

    def subcomponents(self, segment: str, field: int) -> list[str]:
        """Subcomponents of a field's first component."""
        at = self._occurrence(segment)
        return [self.message.get(Ref(segment, field, 1, n), at) for n in range(1, 4)]

    def texts(self) -> Iterator[str]:
        """The lines of a report: OBX-5 of text types, every repetition."""
        for n in self.indices.of.get("OBX", ()):
            if self.message.get("OBX-2", n).upper() not in {"TX", "FT", "ST"}:
                continue
            for r in range(1, self.message.repetitions("OBX-5", n) + 1):
                line = self.message.get("OBX-5", n, r).replace("\r", "\n")
                if line:
                    yield line

    def _occurrence(self, segment: str) -> int:
        own = self.indices.of.get(segment)
        return own[0] if own else 1 if segment in self.indices.shared else 0
