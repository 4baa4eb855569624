"""From where a request comes, and whose word counts about it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_trusted(address: str, networks: Sequence[str]) -> bool:
    """Whether an address is one of the proxies we believe."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip in ipaddress.ip_network(network, strict=False) for network in networks)


def client(peer: str, forwarded_for: str, networks: Sequence[str]) -> str:
    """The client's address: the last in X-Forwarded-For that no trusted proxy put there itself.

    What stands further left was said by the client and may be invented.
    """
    address = peer
    for hop in reversed([part.strip() for part in forwarded_for.split(",") if part.strip()]):
        if not is_trusted(address, networks):
            break
        address = hop
    return address[:64]
