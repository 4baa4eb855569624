"""A destination with a URL as the HTTP clients take it."""

from __future__ import annotations

from agent.settings import Destination
from dicom_nodes.web.http import HttpPeer


def of(destination: Destination) -> HttpPeer:
    """The peer; secrets stay in their files until they are used."""
    return HttpPeer(
        url=destination.url,
        username=destination.username,
        password_file=destination.password_file,
        token_file=destination.token_file,
        ca=destination.ca,
        timeout_s=destination.timeout_s,
    )
