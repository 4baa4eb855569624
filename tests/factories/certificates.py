"""A self-signed certificate for 127.0.0.1, made by openssl for one test session."""

from __future__ import annotations

import subprocess
from pathlib import Path

from factories import peers


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate and its key into a folder; the certificate is its own authority."""
    openssl = peers.require(peers.find("openssl"), "openssl")
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1,DNS:localhost"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        [openssl, *options.split(), *names.split(), *files], check=True, capture_output=True
    )
    return certificate, key
