"""Which hosts count as inside the house, and an HTTP transport that connects nowhere else.

The check is made on the addresses a name resolves to, and the connection goes to the address that
was checked: a name that changes its mind between the two gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from inference.report.errors import DraftError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

#: Loopback, RFC 1918 and unique local addresses. Link-local is left out: clouds serve
#: credentials there.
HOUSE = tuple(
    ipaddress.ip_network(one)
    for one in (
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
    )
)


class LeavesTheHouse(DraftError):
    """An endpoint is outside, and nobody said that data may go there."""


@dataclass(frozen=True)
class House:
    """Where patient data may go.

    Attributes:
        networks: further networks of the house, CIDR.
        off_site_host: the one host outside that may be asked, by its name in the URL.
        data_may_leave: somebody said so; without it `off_site_host` means nothing.
    """

    networks: tuple[str, ...] = ()
    off_site_host: str = ""
    data_may_leave: bool = False

    def holds(self, address: Address) -> bool:
        """Whether an address is inside."""
        mapped = getattr(address, "ipv4_mapped", None)
        extra = tuple(ipaddress.ip_network(one, strict=False) for one in self.networks)
        return any((mapped or address) in network for network in HOUSE + extra)

    def may_leave_to(self, host: str) -> bool:
        """Whether the operator named this host and said that data may leave."""
        named = self.off_site_host.strip().rstrip(".").lower()
        return self.data_may_leave and bool(named) and host.rstrip(".").lower() == named


def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of a name, as the system resolves it."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def permitted_address(host: str, port: int, house: House, lookup: Resolve = resolve) -> str:
    """The address to connect to.

    Raises:
        LeavesTheHouse: one of the name's addresses is outside and that was not permitted.
        DraftError: the name does not resolve (transient).
    """
    try:
        addresses = list(lookup(host, port))
    except OSError as error:
        raise DraftError(f"{host}: no such host at the moment", permanent=False) from error
    if not addresses:
        raise DraftError(f"{host}: no such host at the moment", permanent=False)
    outside = [one for one in addresses if not house.holds(ipaddress.ip_address(_bare(one)))]
    if outside and not house.may_leave_to(host):
        raise LeavesTheHouse(
            f"{host} is outside the house; refused. Add its network to allowed_networks if it is "
            "not; for triage, name it as off_site_host and set data_may_leave = true"
        )
    return addresses[0]


def check_endpoint(url: str, house: House, lookup: Resolve = resolve) -> None:
    """As `permitted_address`, for the configuration's check."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    permitted_address(parts.hostname or "", port, house, lookup)


class HouseTransport(httpx.BaseTransport):
    """Connects to permitted addresses only, by their number; TLS still checks the name."""

    def __init__(
        self, house: House, *, verify: ssl.SSLContext | bool = True, lookup: Resolve = resolve
    ) -> None:
        self._house = house
        self._lookup = lookup
        # no proxies, no .netrc, no retries of its own
        self._inner = httpx.HTTPTransport(verify=verify, trust_env=False, retries=0)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send to the checked address."""
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        address = permitted_address(url.host, port, self._house, self._lookup)
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        request.url = url.copy_with(host=_bare(address))
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Close idle connections."""
        self._inner.close()


def client(
    house: House,
    *,
    api_key: str = "",
    timeout: httpx.Timeout,
    lookup: Resolve = resolve,
) -> httpx.Client:
    """An HTTP client that stays in the house and follows nobody elsewhere."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx.Client(
        transport=HouseTransport(house, lookup=lookup),
        headers=headers,
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
    )


def _bare(address: str) -> str:
    return address.split("%", 1)[0]
