"""A DICOMweb server: where it is, how we prove who we are, and how its HTTP answers are judged."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient

from dicom_nodes.errors import NodeConfigError, NodeError, PeerBusy, PeerRefused, PeerUnavailable

#: 4xx answers that may pass: time-outs, conflicts with a write in progress, throttling.
_TRANSIENT_4XX = frozenset({408, 409, 423, 425, 429})


@dataclass(frozen=True)
class DicomWebPeer:
    """A remote DICOMweb service.

    Attributes:
        url: its root, e.g. ``https://pacs.example/dicom-web``.
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


@contextmanager
def connect(peer: DicomWebPeer) -> Iterator[DICOMwebClient]:
    """A client for the length of a block; its errors become ours.

    Raises:
        NodeError: in the block, whatever goes wrong between us and the peer.
    """
    with requests.Session() as session:
        # no proxies, no .netrc: where we connect and as whom is said by the configuration alone
        session.trust_env = False
        session.auth = _Auth(peer)
        if peer.ca is not None:
            if not peer.ca.is_file():
                raise NodeConfigError(f"{peer.url}: ca file {peer.ca} is missing; correct its path")
            session.verify = str(peer.ca)
        client = _client(peer, session)
        try:
            yield client
        except requests.RequestException as error:
            raise judge(peer, error) from error


def judge(peer: DicomWebPeer, error: requests.RequestException) -> NodeError:
    """Which of our errors a failed HTTP exchange is."""
    if error.response is not None:
        return of_status(peer, error.response.status_code)
    if isinstance(error, requests.exceptions.SSLError):
        return PeerUnavailable(
            f"{peer.url}: no secure connection ({_ssl_reason(error)}); "
            "check the peer's certificate and our ca file"
        )
    if isinstance(error, requests.Timeout):
        return PeerUnavailable(
            f"{peer.url}: no answer within {peer.timeout_s:g} s; check that the server runs"
        )
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return PeerRefused(f"{peer.url}: the answer is not DICOM JSON; check the path of the url")
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return NodeConfigError(f"{peer.url}: not a usable url; correct it")
    return PeerUnavailable(
        f"{peer.url}: no connection or it broke ({type(error).__name__}); "
        "check url, firewall, and that the server runs"
    )


def of_status(peer: DicomWebPeer, status: int) -> NodeError:
    """The error an HTTP status means."""
    if status >= 500 or status in _TRANSIENT_4XX:
        return PeerBusy(f"{peer.url}: HTTP {status}; will try again")
    if status in {401, 403}:
        return PeerRefused(
            f"{peer.url}: HTTP {status}, not allowed; check username, password_file or token_file"
        )
    return PeerRefused(f"{peer.url}: HTTP {status}; check the url and the server's log")


class _Auth(requests.auth.AuthBase):
    """Adds the credentials, read from their file at each request: files may be rotated."""

    def __init__(self, peer: DicomWebPeer) -> None:
        self._peer = peer

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        peer = self._peer
        if peer.token_file is not None:
            request.headers["Authorization"] = f"Bearer {_secret(peer, peer.token_file)}"
        elif peer.username:
            password = _secret(peer, peer.password_file) if peer.password_file else ""
            pair = base64.b64encode(f"{peer.username}:{password}".encode()).decode()
            request.headers["Authorization"] = f"Basic {pair}"
        return request


def _secret(peer: DicomWebPeer, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NodeConfigError(
            f"{peer.url}: secret file {path} cannot be read: {error.strerror}; "
            "correct its path or permissions"
        ) from error


def _client(peer: DicomWebPeer, session: requests.Session) -> DICOMwebClient:
    try:
        client = DICOMwebClient(
            peer.url.rstrip("/"),
            session=session,
            headers={"Accept": "application/dicom+json"},
            callback=_plain_content_type,
            timeout=peer.timeout_s,
            permissive_uid=True,
        )
    except ValueError as error:
        raise NodeConfigError(f"{peer.url}: not a usable DICOMweb url; correct it") from error
    client.set_http_retry_params(retry=False)  # the outbox retries, with its own patience
    return client


def _plain_content_type(response: requests.Response, **_: Any) -> requests.Response:
    """Drop media type parameters: dicomweb-client ignores answers labelled ``...; charset=``."""
    content_type = response.headers.get("Content-Type", "")
    if ";" in content_type and not content_type.lower().startswith("multipart/"):
        response.headers["Content-Type"] = content_type.split(";")[0].strip()
    return response


def _ssl_reason(error: requests.exceptions.SSLError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return str(cause.reason or type(cause).__name__)
        reason = getattr(cause.args[0], "reason", None) if cause.args else None
        cause = reason if isinstance(reason, BaseException) else cause.__context__
    return "TLS"
