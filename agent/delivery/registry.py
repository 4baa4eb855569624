"""Which channel speaks to which kind of destination, and the routes made of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.delivery.channels import Channel, MessageChannel
from agent.delivery.channels.dicom import DicomChannel
from agent.delivery.channels.dicomweb import DicomWebChannel
from agent.delivery.channels.fhir import FhirChannel
from agent.delivery.channels.hl7 import Hl7Channel
from agent.delivery.channels.ups import UpsChannel, UpsRsChannel
from agent.delivery.channels.webhook import WebhookChannel
from agent.settings import Destination

#: kind of a destination -> how a channel is made from (destination, our AE title)
CHANNELS: Mapping[str, Callable[[Destination, str], Channel]] = {
    "dicom": DicomChannel,
    "dicomweb": lambda destination, _calling_ae: DicomWebChannel.of(destination),
}

#: as `CHANNELS`, of destinations that are told (`settings.MESSAGE_DESTINATIONS`)
MESSAGE_CHANNELS: Mapping[str, Callable[[Destination, str], MessageChannel]] = {
    "hl7": lambda destination, _calling_ae: Hl7Channel(destination),
    "ups": UpsChannel,
    "ups-rs": lambda destination, _calling_ae: UpsRsChannel(destination),
    "webhook": lambda destination, _calling_ae: WebhookChannel(destination),
    "fhir": lambda destination, _calling_ae: FhirChannel(destination),
}


@dataclass(frozen=True)
class Proof:
    """What makes an object at a destination count as delivered, beyond its success status.

    Attributes:
        read_back: it was found there, under the identity it was sent with.
        commitment: the destination committed itself to keep it.
        read_back_timeout_s: not found for so long, it is sent again.
        commitment_timeout_s: not reported for so long, commitment is asked for again.
    """

    read_back: bool = True
    commitment: bool = False
    read_back_timeout_s: float = 600.0
    commitment_timeout_s: float = 600.0


@dataclass(frozen=True)
class Route:
    """A destination as the outbox needs it.

    Attributes:
        channel: speaks to it.
        check_identity: ask it whose study it holds before a push.
        shadow: send nothing, also not what was enqueued before shadow mode was switched on.
        proof: what must be proven after an object was sent; None = its success status is enough.
    """

    channel: Channel | MessageChannel
    check_identity: bool = True
    shadow: bool = False
    proof: Proof | None = None


def channel(destination: Destination, calling_ae: str) -> Channel:
    """The channel for one destination that is sent objects; opens nothing yet."""
    return CHANNELS[destination.kind](destination, calling_ae)


def message_channel(destination: Destination, calling_ae: str = "WLAGENT") -> MessageChannel:
    """The channel for one destination that is told; opens nothing yet."""
    return MESSAGE_CHANNELS[destination.kind](destination, calling_ae)


def any_channel(destination: Destination, calling_ae: str) -> Channel | MessageChannel:
    """The channel for one destination of whatever kind; opens nothing yet."""
    if destination.kind in MESSAGE_CHANNELS:
        return message_channel(destination, calling_ae)
    return channel(destination, calling_ae)


def routes(destinations: Sequence[Destination], calling_ae: str) -> dict[str, Route]:
    """Destination name -> route, for all that are configured."""
    return {
        d.name: Route(any_channel(d, calling_ae), d.check_identity, d.shadow, _proof(d))
        for d in destinations
    }


def _proof(destination: Destination) -> Proof | None:
    if not (destination.read_back or destination.commitment):
        return None
    return Proof(
        read_back=destination.read_back,
        commitment=destination.commitment,
        read_back_timeout_s=destination.read_back_timeout_s,
        commitment_timeout_s=destination.commitment_timeout_s,
    )
