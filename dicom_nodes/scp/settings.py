"""How the listening node behaves, and who may associate with it."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from typing import Literal

from dicom_nodes.errors import NodeConfigError
from dicom_nodes.received import Peer
from dicom_nodes.statuses import (
    CALLED_AE_UNKNOWN,
    CALLING_AE_UNKNOWN,
    NO_REASON_GIVEN,
    Rejection,
)


@dataclass(frozen=True)
class ServerSettings:
    """A listening DICOM node.

    Attributes:
        ae_title: our AE title.
        host, port: where to listen; port 0 takes a free one.
        max_pdu: longest PDU we accept.
        max_associations: served at the same time; further ones are rejected, transiently.
        max_associations_per_peer: the same, per network address.
        allowed_calling_ae: AE titles that may associate; empty allows any.
        allowed_networks: networks that may connect; empty allows any.
        require_called_ae: the peer must call us by our AE title.
        network_timeout_s: longest silence while something is expected.
        acse_timeout_s: longest wait for the TLS handshake and the A-ASSOCIATE-RQ.
        dimse_timeout_s: longest time from the first to the last byte of one PDU.
        idle_timeout_s: longest silence between messages.
        max_instance_bytes: longest instance.
        tls: context for secure transport, or None for plain TCP.
        engine: ``fast`` (pynetdicom for extra services only) or ``pynetdicom`` for everything.
    """

    ae_title: str = "WLAGENT"
    host: str = "127.0.0.1"
    port: int = 11112
    max_pdu: int = 131072
    max_associations: int = 32
    max_associations_per_peer: int = 16
    allowed_calling_ae: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    require_called_ae: bool = False
    network_timeout_s: float = 60.0
    acse_timeout_s: float = 30.0
    dimse_timeout_s: float = 60.0
    idle_timeout_s: float = 300.0
    max_instance_bytes: int = 16 * 2**30
    tls: ssl.SSLContext | None = None
    engine: Literal["fast", "pynetdicom"] = "fast"

    def __post_init__(self) -> None:
        if not 4096 <= self.max_pdu <= 2**20:
            raise NodeConfigError(f"max_pdu is {self.max_pdu}; allowed: 4096 to 1048576")
        try:
            for network in self.allowed_networks:
                ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise NodeConfigError(f"allowed_networks: {error}; write e.g. 10.1.0.0/16") from error


def refusal(settings: ServerSettings, peer: Peer) -> Rejection | None:
    """Say why `peer` may not associate, or None."""
    if not address_allowed(settings.allowed_networks, peer.address):
        return NO_REASON_GIVEN
    if settings.allowed_calling_ae and peer.calling_ae not in settings.allowed_calling_ae:
        return CALLING_AE_UNKNOWN
    if settings.require_called_ae and peer.called_ae != settings.ae_title:
        return CALLED_AE_UNKNOWN
    return None


def address_allowed(networks: tuple[str, ...], address: str) -> bool:
    """Say whether `address` lies in one of `networks`; no networks allow any address."""
    if not networks:
        return True
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    candidates = {ip, mapped} - {None}
    return any(
        candidate in ipaddress.ip_network(network, strict=False)
        for network in networks
        for candidate in candidates
    )
