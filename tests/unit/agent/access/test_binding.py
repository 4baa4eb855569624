"""The page is served to other machines only with a login and TLS, or by an explicit word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import certificates
from fastapi import FastAPI

from agent.access import binding
from agent.access.address import client
from agent.access.errors import UnsafeBinding
from agent.settings import WebSettings
from agent.settings_base import TlsSettings
from agent.web.server import WebServer

TLS = TlsSettings(certificate=Path("a.crt"), key=Path("a.key"))


@pytest.mark.parametrize(
    ("web", "missing"),
    [
        ({}, "no login .* and no TLS"),
        ({"auth": "local"}, "no TLS"),
        ({"tls": TLS}, "no login"),
        ({"user_header": "X-User"}, "no login"),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "worklist.example.org"])
def test_others_are_not_served_without_login_and_tls(host: str, web: dict[str, Any], missing: str):
    """A header that anybody can send is no login."""
    with pytest.raises(UnsafeBinding, match=missing):
        binding.check(WebSettings(host=host, **web))


@pytest.mark.parametrize(
    ("web", "warnings"),
    [
        ({}, 0),
        ({"host": "::1"}, 0),
        ({"host": "0.0.0.0", "auth": "local", "tls": TLS}, 0),
        ({"host": "0.0.0.0", "behind_proxy": True, "user_header": "X-User"}, 0),
        ({"host": "127.0.0.1", "behind_proxy": True}, 1),
        ({"host": "0.0.0.0", "insecure": True}, 1),
        ({"host": "0.0.0.0", "enabled": False}, 0),
    ],
)
def test_what_is_allowed_but_open_warns(web: dict[str, Any], warnings: int):
    """On this machine alone nothing is asked."""
    assert len(binding.check(WebSettings(**web))) == warnings


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.7", "10.0.0.1", "192.0.2.7"),
        ("127.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "1.2.3.4, 10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "10.0.0.1, 127.0.0.2", "10.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
    ],
)
def test_an_address_is_what_a_trusted_proxy_says(peer: str, forwarded: str, address: str):
    """What the client wrote there itself does not count."""
    assert client(peer, forwarded, ("127.0.0.0/8",)) == address


@pytest.mark.peers
def test_the_page_is_served_over_tls(tmp_path: Path):
    """With the configured certificate; plain HTTP gets nothing."""
    import httpx

    certificate, key = certificates.self_signed(tmp_path)
    app = FastAPI()
    app.add_api_route("/healthz", lambda: "alive")
    server = WebServer(app, "127.0.0.1", 0, TlsSettings(certificate=certificate, key=key))
    server.start()
    try:
        import ssl

        trust = ssl.create_default_context(cafile=str(certificate))
        address = f"127.0.0.1:{server.port}/healthz"
        assert httpx.get(f"https://{address}", verify=trust).json() == "alive"
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://{address}")
    finally:
        server.stop()
