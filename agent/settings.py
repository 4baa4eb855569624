"""The sections of config.toml as frozen values: names, defaults, limits and what each key means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from agent.section import Section
from agent.settings_access import (
    AuditSettings,
    OidcSettings,
    PasswordSettings,
    SessionSettings,
    WebAccess,
)
from agent.settings_arrival import (
    CommitmentPeer,
    CommitmentSettings,
    ExpectedProtocol,
    ExpectedSeries,
)
from agent.settings_base import AETitle, Fraction, Level, Network, Port, Regex, TlsSettings
from agent.settings_destinations import (
    MESSAGE_DESTINATIONS,
    Destination,
    MessageKind,
    ResultKind,
)
from agent.settings_dicomweb import DicomWebSettings
from agent.settings_hl7 import Hl7Sending, Hl7Settings, MwlSettings, OrderFields
from agent.settings_messages import FhirSending, OAuthClient, WebhookSending
from agent.settings_priors import PriorSettings
from agent.settings_report import ReportSettings, TriageSettings
from agent.settings_ups import UpsSending, UpsSettings, UpsSubscriber
from agent.settings_viewer import ViewerAddress

#: Sections of other modules that are part of this one's vocabulary.
__all__ = [
    "MESSAGE_DESTINATIONS",
    "AETitle",
    "AuditSettings",
    "CommitmentPeer",
    "CommitmentSettings",
    "Destination",
    "DicomWebSettings",
    "ExpectedProtocol",
    "ExpectedSeries",
    "FhirSending",
    "Fraction",
    "Hl7Sending",
    "Hl7Settings",
    "Level",
    "MessageKind",
    "MwlSettings",
    "Network",
    "OAuthClient",
    "OidcSettings",
    "OrderFields",
    "PasswordSettings",
    "Port",
    "PriorSettings",
    "Regex",
    "ReportSettings",
    "ResultKind",
    "Section",
    "SessionSettings",
    "TlsSettings",
    "TriageSettings",
    "UpsSending",
    "UpsSettings",
    "UpsSubscriber",
    "ViewerAddress",
    "WebAccess",
    "WebhookSending",
]


class StorageSettings(Section):
    """Where data lies and how long."""

    data_dir: Path = Path("var")
    """Spool, results and the default database live below this directory."""
    low_water_mark_mb: PositiveInt = 2048
    """Below this free space C-STORE answers 0xA700 (out of resources)."""
    retention_days: PositiveFloat = 30.0
    """Studies in a final state for longer are removed from spool and results."""
    keep_incoming_minutes: PositiveFloat = 15.0
    """Interrupted transfers older than this are swept."""


class DatabaseSettings(Section):
    """The record."""

    url: str = ""
    """SQLAlchemy URL; empty = SQLite in data_dir. PostgreSQL: postgresql+psycopg://…"""


class DicomSettings(Section):
    """Our DICOM node: storage and worklist SCP."""

    ae_title: AETitle = "WLAGENT"
    host: str = "127.0.0.1"
    port: Port = 11112
    max_pdu: Annotated[int, Field(ge=4096, le=1048576)] = 131072
    max_associations: PositiveInt = 32
    max_associations_per_peer: PositiveInt = 16
    require_called_ae: bool = False
    allowed_calling_ae: tuple[AETitle, ...] = ()
    allowed_networks: tuple[Network, ...] = ()
    network_timeout_s: PositiveFloat = 60.0
    acse_timeout_s: PositiveFloat = 30.0
    dimse_timeout_s: PositiveFloat = 60.0
    engine: Literal["fast", "pynetdicom"] = "fast"
    tls: TlsSettings = TlsSettings()


class WebSettings(WebAccess):
    """Worklist page, REST, health and metrics."""

    enabled: bool = True
    port: Port = 8080
    refresh_s: PositiveFloat = 3.0
    user_header: str = ""
    """Header in which a trusted reverse proxy names the user (for feedback); empty = anonymous."""
    viewer_url: ViewerAddress = ""
    """Opens a study in the PACS viewer; ``{study_uid}`` and ``{accession}`` are filled in."""
    ohif_url: ViewerAddress = ""
    """The same for OHIF."""


class Match(Section):
    """Conditions on a study; all that are given must hold.

    Texts are regular expressions, searched without regard to case.
    """

    modality: Regex | None = None
    body_part: Regex | None = None
    text: Regex | None = None
    """Searched in study description, series descriptions, protocol names and body part."""
    not_text: Regex | None = None
    station: Regex | None = None
    location: Regex | None = None
    calling_ae: Regex | None = None
    ordered_priority: Regex | None = None
    age_min: NonNegativeFloat | None = None
    age_max: NonNegativeFloat | None = None
    min_series: PositiveInt | None = None
    """At least so many image series (CT, MR) were received."""


class AssemblySettings(Section):
    """When a study is complete."""

    quiet_s: PositiveFloat = 30.0
    quiet_s_by_modality: dict[str, PositiveFloat] = Field(default={})
    ceiling_s: PositiveFloat = 1800.0
    """Analysed as it is after this long, even if instances still arrive."""
    count_from: str = ""
    """Name of a destination that is asked for its instance count; empty = nobody."""
    count_min_quiet_s: NonNegativeFloat = 2.0
    """How long a study must be quiet before a matching count completes it early."""
    announced_quiet_s: PositiveFloat = 300.0
    """How long it must be quiet while instances that were announced are missing."""
    released_quiet_s_by_modality: dict[str, PositiveFloat] = Field(default={})
    """How long it must be quiet once its sender has released all associations."""
    expected_series: tuple[ExpectedProtocol, ...] = ()
    """Complete when all series of the first protocol that matches are here."""
    provisional: tuple[Match, ...] = ()
    """Studies (any of these) whose first usable series is analysed before they are complete."""
    provisional_quiet_s: PositiveFloat = 5.0
    """A series counts as received when no image of it has come for so long."""
    provisional_min_images: PositiveInt = 8
    """A series with fewer images (a scout) is not analysed early; multi-frame ones count as one."""


class RoutingRule(Section):
    """First rule that matches decides: a pack or several, or a skip with its reason."""

    name: Annotated[str, Field(min_length=1)]
    when: Match = Match()
    pack: str = ""
    packs: tuple[str, ...] = ()
    """Packs that all read the study, one after the other in this order."""
    skip: str = ""

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if [bool(self.pack), bool(self.packs), bool(self.skip)].count(True) != 1:
            raise ValueError("a rule names either a pack or a skip reason (or packs, a list)")
        if len(set(self.packs)) != len(self.packs):
            raise ValueError("packs names the same pack twice")
        return self

    @property
    def all_packs(self) -> tuple[str, ...]:
        """The packs, however they were named."""
        return self.packs or ((self.pack,) if self.pack else ())


class RoutingSettings(Section):
    """Which studies go to which model."""

    rules: tuple[RoutingRule, ...] = ()
    no_match: str = "no routing rule matches this study"


class PackSettings(Section):
    """One model pack and how it is used here."""

    path: Path
    shadow: bool = True
    """Analyse and record, push nothing."""
    thresholds: dict[str, Fraction] = Field(default={})
    """Site thresholds by label; the pack's own apply otherwise."""


class InferenceSettings(Section):
    """The model process."""

    device: str = "auto"
    executor: Literal["process", "inline"] = "process"
    timeout_s: PositiveFloat = 600.0
    """A study that takes longer is stopped and tried again."""
    max_attempts: PositiveInt = 3
    batch_studies: PositiveInt = 1
    """Waiting studies of the same pack that are analysed together; worth it on a GPU."""
    lime_samples: NonNegativeInt = 200
    """Variants of a series from which a present finding is located (Prima); 0 = off."""
    lime_series: PositiveInt = 2
    """Series of a study that are explained, those that matter most first."""
    lime_seconds: PositiveFloat = 60.0
    """Time for it; what was sampled by then counts."""
    lease_s: PositiveFloat = 120.0
    """Renewed while a study is worked on; a study of a vanished worker is given back after it."""


class PriorityOverride(Section):
    """A site rule that raises the level of matching studies."""

    name: Annotated[str, Field(min_length=1)]
    when: Match = Match()
    finding: Regex | None = None
    """Label of a finding above threshold; not given = whatever was found."""
    at_least: Level


class PrioritySettings(Section):
    """From findings to a reading priority."""

    urgent: Level = Level.STAT
    routine: Level = Level.MEDIUM
    normal: Level = Level.LOW
    """Level of a finding of each acuity class; nothing found counts as normal."""
    labels: dict[str, Level] = Field(default={})
    """Level by label, before the acuity class."""
    model_levels: dict[str, Level] = Field(
        default={
            "none": Level.LOW,
            "low": Level.MEDIUM,
            "medium": Level.HIGH,
            "high": Level.STAT,
        }
    )
    """Level by the answer of a model's own priority head (Prima)."""
    certain_margin: Fraction = 0.0
    """An urgent finding less than this above its threshold gives HIGH instead of STAT."""
    unread_failure: Level = Level.MEDIUM
    """Level of a study that could not be analysed: absence of a flag is not a negative."""
    ordered: dict[str, Level] = Field(
        default={
            "STAT": Level.STAT,
            "HIGH": Level.HIGH,
            "MEDIUM": Level.MEDIUM,
            "ROUTINE": Level.LOW,
            "LOW": Level.LOW,
        }
    )
    """Ordered priority (as received, upper case) -> level; the result is never below it."""
    overrides: tuple[PriorityOverride, ...] = ()
    target_minutes: dict[Level, PositiveFloat] = Field(
        default={Level.STAT: 10.0, Level.HIGH: 30.0, Level.MEDIUM: 240.0, Level.LOW: 1440.0}
    )
    """How long a study of each level may wait; past its target it climbs, so none starves."""

    @model_validator(mode="after")
    def _targets(self) -> Self:
        missing = [level.value for level in Level if level not in self.target_minutes]
        if missing:
            raise ValueError(f"target_minutes lacks {', '.join(missing)}")
        minutes = [self.target_minutes[level] for level in Level]
        if minutes != sorted(minutes):
            raise ValueError("target_minutes must not shrink from STAT to LOW")
        return self


class ResultSettings(Section):
    """Which objects are made of an analysis."""

    kinds: tuple[ResultKind, ...] = ("sr", "seg", "pm", "sc")
    max_segments: PositiveInt = 8
    institution: str = ""


class DeliverySettings(Section):
    """How results are sent and when we give up."""

    workers: PositiveInt = 2
    first_retry_s: PositiveFloat = 5.0
    backoff: Annotated[float, Field(ge=1.0)] = 2.0
    max_retry_s: PositiveFloat = 900.0
    jitter: Fraction = 0.2
    dead_after_hours: PositiveFloat = 72.0
    """A delivery this old becomes a dead letter and raises the alarm."""
    lease_s: PositiveFloat = 300.0


class LogSettings(Section):
    """Structured logs; they never hold patient data."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class ScheduleSettings(Section):
    """How often the sweeps run."""

    assembly_s: PositiveFloat = 1.0
    lease_s: PositiveFloat = 15.0
    delivery_s: PositiveFloat = 1.0
    proof_s: PositiveFloat = 1.0
    digest_s: PositiveFloat = 10.0
    retention_s: PositiveFloat = 3600.0
    health_s: PositiveFloat = 15.0
