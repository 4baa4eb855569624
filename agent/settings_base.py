"""What sections of the configuration are made of: checked types, levels, certificates."""

from __future__ import annotations

import enum
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from agent.section import Section

_AE_TITLE = re.compile(r"^(?=.*[^ ])[\x20-\x5B\x5D-\x7E]{1,16}$")


def _ae_title(value: str) -> str:
    if not _AE_TITLE.match(value):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters, no backslash")
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Regex = Annotated[str, AfterValidator(_regex)]
Network = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=0, le=65535)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Level(enum.StrEnum):
    """Reading priority, most urgent first (DICOM Requested Procedure Priority terms)."""

    STAT = "STAT"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"

    @property
    def rank(self) -> int:
        """0 for the most urgent level."""
        return list(Level).index(self)


class TlsSettings(Section):
    """Certificates for secure DICOM transport (PS3.15 B.12); empty = plain TCP."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    """Authority of peer certificates; when set, peers must present one."""

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: set both or neither")
        return self
