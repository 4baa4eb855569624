"""The `[ups]` section, and `ups` of a destination: workitems here and at other managers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from agent.section import Section
from agent.settings_base import AETitle, Port, TlsSettings


class UpsSubscriber(Section):
    """Where a subscriber takes its events by DIMSE; others open an event channel (WebSocket)."""

    ae_title: AETitle
    host: str = "127.0.0.1"
    port: Port = 104
    tls: TlsSettings = TlsSettings()
    timeout_s: PositiveFloat = 10.0


class UpsSettings(Section):
    """The reading tasks as workitems on our DICOM port and under our web address."""

    accept_created: bool = False
    """Other systems may create workitems here (N-CREATE, POST /workitems)."""
    fill_performed: bool = True
    """Add what a final state requires where the performer of a reading task left it out."""
    retrieve_ae_title: str = ""
    """Where readers find the images (Input Information Sequence); empty = not said."""
    subscribers: tuple[UpsSubscriber, ...] = ()
    max_subscribers: PositiveInt = 100
    """Application entities that may have subscribed at once."""
    keep_events_minutes: PositiveFloat = 60.0
    """What a subscriber could not be told for so long is no news any more."""


class UpsSending(Section):
    """How a worklist manager (``kind = "ups"`` or ``"ups-rs"``) is told."""

    workitem_per: Literal["study", "revision"] = "study"
    """One reading task of a study that is changed, or a new one that replaces the older."""
    worklist_label: Annotated[str, Field(min_length=1, max_length=64)] = "READING"
    requester_ae: AETitle = "WLAGENT"
    """Who asks for a cancellation, as the manager sees it (ups-rs)."""
