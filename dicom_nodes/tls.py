"""TLS contexts for secure DICOM transport: BCP 195 profile of PS3.15 B.12, TLS 1.2 or newer."""

from __future__ import annotations

import ssl
from pathlib import Path

from dicom_nodes.errors import NodeConfigError


def server_context(certificate: Path, key: Path, ca: Path | None = None) -> ssl.SSLContext:
    """Return the context of a listening node.

    Args:
        certificate: our certificate chain, PEM.
        key: its private key, PEM.
        ca: authority of the peers' certificates; when given, a peer must present one.

    Raises:
        NodeConfigError: a file is missing or does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, certificate, key, ca)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return the context of a calling node; `ca` None trusts the system's authorities.

    Raises:
        NodeConfigError: a file is missing or does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, certificate, key, ca)
    if ca is None:
        context.load_default_certs()
    return context


def _load(
    context: ssl.SSLContext, certificate: Path | None, key: Path | None, ca: Path | None
) -> None:
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        if ca is not None:
            context.load_verify_locations(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise NodeConfigError(
            f"TLS files cannot be used: {error.strerror or error}; "
            "check that certificate, key and ca are readable PEM files that belong together"
        ) from error
