"""Plain REST over HTTP(S): one request, and errors that say whether asking again can help."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from dicom_nodes.errors import NodeConfigError, NodeError, PeerBusy, PeerRefused, PeerUnavailable

#: 408 timeout, 412 changed under us, 423 locked, 425 too early, 429 too many.
_TRANSIENT_4XX = frozenset({408, 412, 423, 425, 429})


@dataclass(frozen=True)
class HttpPeer:
    """A remote HTTP service.

    Attributes:
        url: its root; messages name its host, and never a path or query.
        username, password_file: HTTP basic authentication.
        token_file: bearer token; wins over a user name.
        ca: certificate authority file for https; None = the default authorities.
        timeout_s: for connecting, and for every read.
    """

    url: str
    username: str = ""
    password_file: Path | None = None
    token_file: Path | None = None
    ca: Path | None = None
    timeout_s: float = 30.0

    @property
    def name(self) -> str:
        """Scheme, host and port."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@contextmanager
def connect(peer: HttpPeer, headers: Mapping[str, str] | None = None) -> Iterator[httpx.Client]:
    """A client for the length of a block; its errors become ours.

    No proxies, no .netrc, no redirects: where we connect and as whom the configuration alone says.

    Raises:
        NodeError: in the block, whatever goes wrong between us and the peer.
    """
    if urlsplit(peer.url).scheme not in {"http", "https"}:
        raise NodeConfigError(f"{peer.name}: not an http(s) url; correct it")
    given = {**credentials(peer), **(headers or {})}
    with (
        errors(peer),
        httpx.Client(
            base_url=peer.url.rstrip("/") + "/",
            headers=given,
            timeout=peer.timeout_s,
            verify=verify(peer),
            trust_env=False,
            follow_redirects=False,
        ) as client,
    ):
        yield client


@contextmanager
def errors(peer: HttpPeer) -> Iterator[None]:
    """Make errors of the client library ours.

    Raises:
        NodeError: what went wrong between us and the peer.
    """
    try:
        yield
    except httpx.TimeoutException as error:
        raise PeerUnavailable(
            f"{peer.name}: no answer within {peer.timeout_s:g} s; check that the server runs"
        ) from error
    except httpx.InvalidURL as error:
        raise NodeConfigError(f"{peer.name}: not a usable url; correct it") from error
    except httpx.HTTPError as error:
        raise PeerUnavailable(
            f"{peer.name}: no connection or it broke ({type(error).__name__}); "
            "check url, certificates, firewall, and that the server runs"
        ) from error


def check(peer: HttpPeer, answer: httpx.Response) -> None:
    """Raise what a status means; nothing for 2xx.

    Raises:
        NodeError: `permanent` says whether asking again can help.
    """
    error = of_status(peer, answer.status_code)
    if error:
        raise error


def of_status(peer: HttpPeer, status: int) -> NodeError | None:
    """The error an HTTP status means; None for 2xx."""
    if 200 <= status < 300:
        return None
    if status >= 500 or status in _TRANSIENT_4XX:
        return PeerBusy(f"{peer.name}: HTTP {status}; will try again; check the server's log")
    if status in {401, 403}:
        return PeerRefused(
            f"{peer.name}: HTTP {status}, not allowed; check the credentials of the destination"
        )
    if 300 <= status < 400:
        return PeerRefused(f"{peer.name}: HTTP {status}, moved; correct the url")
    return PeerRefused(f"{peer.name}: HTTP {status}; check the url and the server's log")


def credentials(peer: HttpPeer) -> dict[str, str]:
    """The Authorization header, read from files at each use: they may be rotated."""
    if peer.token_file is not None:
        return {"Authorization": f"Bearer {secret(peer.name, peer.token_file)}"}
    if peer.username:
        password = secret(peer.name, peer.password_file) if peer.password_file else ""
        pair = base64.b64encode(f"{peer.username}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {}


def secret(name: str, path: Path) -> str:
    """A secret's file, without the end of its line.

    Raises:
        NodeConfigError: it cannot be read, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NodeConfigError(
            f"{name}: secret file {path.name} cannot be read ({type(error).__name__}); "
            "correct its path or permissions"
        ) from error
    if not text:
        raise NodeConfigError(f"{name}: secret file {path.name} is empty; write the secret into it")
    return text


def verify(peer: HttpPeer) -> ssl.SSLContext | bool:
    """Whom to trust, as httpx takes it."""
    if urlsplit(peer.url).scheme != "https":
        return False  # building a context takes longer than the request
    if peer.ca is None:
        return True
    if not peer.ca.is_file():
        raise NodeConfigError(f"{peer.name}: ca file {peer.ca.name} is missing; correct its path")
    return ssl.create_default_context(cafile=str(peer.ca))
