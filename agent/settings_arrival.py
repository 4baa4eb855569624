"""Settings of what arrives and what must have arrived: expected series, commitment, proof."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from agent.section import Section
from agent.settings_base import AETitle, Port, Regex, TlsSettings


class ExpectedSeries(Section):
    """One kind of series that a protocol makes."""

    description: Regex
    """Searched, without regard to case, in the series' description and protocol name."""
    min_instances: PositiveInt = 1
    """A series counts from so many instances on."""
    min_series: PositiveInt = 1


class ExpectedProtocol(Section):
    """A study of this protocol is complete when all of these series are here."""

    name: Annotated[str, Field(min_length=1)]
    protocol: Regex
    """Searched, without regard to case, in study description and protocol names."""
    series: Annotated[tuple[ExpectedSeries, ...], Field(min_length=1)]
    quiet_s: PositiveFloat = 5.0
    """How long the study must be quiet: the last series may have begun only just now."""


class CommitmentPeer(Section):
    """Where a peer that asks us for storage commitment takes our report."""

    ae_title: AETitle
    host: str
    port: Port = 104
    tls: TlsSettings = TlsSettings()
    timeout_s: PositiveFloat = 30.0


class CommitmentSettings(Section):
    """Storage commitment for those who send to us."""

    peers: tuple[CommitmentPeer, ...] = ()
    """A peer that is not listed (nor a destination) is answered on its own association."""
    give_up_hours: PositiveFloat = 24.0
    """A report that could not be brought for so long is given up."""
