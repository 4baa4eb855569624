"""The `[hl7]` and `[mwl]` sections, and `hl7` of a destination: fields and codes of the site."""

from __future__ import annotations

import string
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from agent.section import Section
from agent.settings_base import AETitle, Level, Network, Port, TlsSettings
from dicom_nodes.hl7 import charsets
from dicom_nodes.hl7.messages import Ref

#: What a value of `Hl7Sending.fields` may name in braces.
PLACEHOLDERS = frozenset(
    {
        "accession",
        "filler_order",
        "issuer",
        "level",
        "location",
        "modality",
        "patient_id",
        "placer_order",
        "priority",
        "procedure",
        "procedure_id",
        "reason",
        "study_uid",
    }
)


def _field(value: str) -> str:
    Ref.of(value)
    return value


def _charset(value: str) -> str:
    if value not in charsets.CODECS:
        raise ValueError(f"known character sets: {', '.join(charsets.CODECS)}")
    return value


def _template(value: str) -> str:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
    except ValueError as error:
        raise ValueError(f"not a template: {error}") from error
    unknown = names - PLACEHOLDERS
    if unknown:
        raise ValueError(f"unknown {sorted(unknown)}; known: {', '.join(sorted(PLACEHOLDERS))}")
    return value


FieldName = Annotated[str, AfterValidator(_field)]
Fields = tuple[FieldName, ...]
Charset = Annotated[str, AfterValidator(_charset)]
Template = Annotated[str, AfterValidator(_template)]
Term = Annotated[str, Field(max_length=16)]


class OrderFields(Section):
    """Where the site's messages carry what we need; the first that is not empty counts."""

    accession: Fields = ("IPC-1", "OBR-18")
    study_uid: Fields = ("IPC-3", "ZDS-1")
    procedure_id: Fields = ("IPC-2", "OBR-19")
    placer_order: Fields = ("ORC-2", "OBR-2")
    filler_order: Fields = ("ORC-3", "OBR-3")
    procedure_code: Fields = ("OBR-4",)
    indication: Fields = ("OBR-31.2", "OBR-31", "OBR-13")
    priority: Fields = ("TQ1-9", "ORC-7.6", "OBR-27.6", "OBR-5")
    location: Fields = ("PV1-3",)


class Hl7Settings(Section):
    """The listener: orders, merges and final reports come in."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 2575
    allowed_networks: tuple[Network, ...] = ()
    tls: TlsSettings = TlsSettings()
    max_message_kb: PositiveInt = 1024
    max_connections: PositiveInt = 16
    idle_timeout_s: PositiveFloat = 600.0
    """A connection that waits longer between two messages is closed."""
    message_timeout_s: PositiveFloat = 30.0
    """A message that takes longer from its first to its last byte ends its connection."""
    default_charset: Charset = charsets.UTF8
    """Of messages that state none in MSH-18."""
    processing_ids: tuple[Literal["P", "T", "D"], ...] = ("P",)
    """Others are rejected (AR): a test feed must not reorder the worklist."""
    ignore_other_events: bool = False
    """Accept, and ignore, messages of other types; otherwise they are rejected (AR)."""
    issuers: dict[str, str] = Field(default={})
    """Assigning authority (PID-3.4) -> Issuer of Patient ID as in the images."""
    patient_authority: str = ""
    """Which repetition of PID-3 is the patient ID of the images; empty = the first."""
    priorities: dict[str, Term] = Field(
        default={"S": "STAT", "A": "HIGH", "P": "HIGH", "C": "HIGH", "T": "MEDIUM", "R": "ROUTINE"}
    )
    """Ordered priority (table 0485 or the site's own) -> a term of [priority.ordered]."""
    report_marks_read: bool = False
    """A final report takes the study off the open list."""
    join_s: PositiveFloat = 5.0
    """How often studies and orders that came apart are joined."""
    keep_days: PositiveFloat = 90.0
    """Orders and messages older than this are removed; quarantined messages too."""
    fields: OrderFields = OrderFields()


class MwlSettings(Section):
    """The RIS' modality worklist, asked for orders where no HL7 feed can be had."""

    enabled: bool = False
    name: str = "mwl"
    """As it appears in the timeline."""
    ae_title: AETitle = "RIS"
    host: str = "127.0.0.1"
    port: Port = 104
    tls: TlsSettings = TlsSettings()
    timeout_s: PositiveFloat = 30.0
    every_s: PositiveFloat = 15.0
    """How often studies without an order are looked for."""
    ask_again_s: PositiveFloat = 300.0
    """A study that the worklist did not know is asked for again after this long ..."""
    give_up_hours: PositiveFloat = 12.0
    """... until it is this old."""
    match_on: Literal["accession", "patient"] = "accession"


class Hl7Sending(Section):
    """How a ``kind = "hl7"`` destination is told."""

    application: str = "WLAGENT"
    """MSH-3 and, below, MSH-4 to MSH-6."""
    facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    version: Literal["2.3.1", "2.4", "2.5", "2.5.1"] = "2.5.1"
    processing_id: Literal["P", "T", "D"] = "P"
    charset: Charset = charsets.UTF8
    priority_as: Literal["ORU^R01", "ORM^O01", "OMI^O23"] = "ORU^R01"
    """Message of a priority: a preliminary result, or an update of the order (by agreement)."""
    order_control: Literal["XO", "SC", "XX", "RP"] = "XO"
    """ORC-1 of an update of the order."""
    priorities: dict[Level, str] = Field(
        default={Level.STAT: "S", Level.HIGH: "A", Level.MEDIUM: "T", Level.LOW: "R"}
    )
    """Level -> code of the site."""
    priority_fields: Fields = ("ORC-7.6", "OBR-27.6", "TQ1-9")
    """Where the code goes, of the segments that the message has."""
    fields: dict[FieldName, Template] = Field(default={})
    """Further fields as the site wants them, e.g. "OBR-24" = "{modality}"."""
    local_scheme: str = "L"
    """Coding system of findings whose own is no SNOMED, LOINC or DICOM code."""
    on_error: Literal["retry", "dead"] = "retry"
    """What to do after AE."""
    on_reject: Literal["retry", "dead"] = "dead"
    """What to do after AR."""

    @model_validator(mode="after")
    def _codes(self) -> Self:
        missing = [level.value for level in Level if level not in self.priorities]
        if missing:
            raise ValueError(f"priorities lacks {', '.join(missing)}")
        return self
