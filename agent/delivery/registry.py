"""Which channel speaks to which kind of destination, and the routes made of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.delivery.channels import Channel
from agent.delivery.channels.dicom import DicomChannel
from agent.delivery.channels.dicomweb import DicomWebChannel
from agent.settings import Destination

#: kind of a destination -> how a channel is made from (destination, our AE title)
CHANNELS: Mapping[str, Callable[[Destination, str], Channel]] = {
    "dicom": DicomChannel,
    "dicomweb": lambda destination, _calling_ae: DicomWebChannel.of(destination),
}


@dataclass(frozen=True)
class Route:
    """A destination as the outbox needs it.

    Attributes:
        channel: speaks to it.
        check_identity: ask it whose study it holds before a push.
        shadow: send nothing, also not what was enqueued before shadow mode was switched on.
    """

    channel: Channel
    check_identity: bool = True
    shadow: bool = False


def channel(destination: Destination, calling_ae: str) -> Channel:
    """The channel for one destination; opens nothing yet."""
    return CHANNELS[destination.kind](destination, calling_ae)


def routes(destinations: Sequence[Destination], calling_ae: str) -> dict[str, Route]:
    """Destination name -> route, for all that are configured."""
    return {d.name: Route(channel(d, calling_ae), d.check_identity, d.shadow) for d in destinations}
