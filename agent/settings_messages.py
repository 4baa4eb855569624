"""`webhook` and `fhir` of a destination: what is said over HTTP, and how it is signed."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from agent.section import Section
from agent.settings_base import Level

Identifier = Literal[
    "study_uid",
    "accession_number",
    "patient_id",
    "patient_name",
    "birth_date",
    "order_numbers",
]
Priority = Literal["stat", "asap", "urgent", "routine"]


def _search(value: str) -> str:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
    except ValueError as error:
        raise ValueError(f"not a template: {error}") from error
    if not names <= {"accession", "study_uid"}:
        raise ValueError("a search may name {accession} and {study_uid}")
    if value and ("=" not in value or not names):
        raise ValueError('a search is like "identifier=http://hospital.example/acc|{accession}"')
    return value


class WebhookSending(Section):
    """How a ``kind = "webhook"`` destination is told."""

    secret_file: Path | None = None
    """Key of the signature (HMAC-SHA256); required."""
    identifiers: tuple[Identifier, ...] = ("study_uid", "accession_number")
    """Who and what is named in the body; nothing is ever named in the URL."""
    findings: bool = True
    """With a report: what was found, and the draft where there is one."""


class OAuthClient(Section):
    """OAuth2 client credentials (SMART backend services without a key pair)."""

    token_url: str = ""
    """Empty = no OAuth2: token_file or username of the destination."""
    client_id: str = ""
    client_secret_file: Path | None = None
    scope: str = "system/*.*"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.token_url and not (self.client_id and self.client_secret_file):
            raise ValueError("oauth needs client_id and client_secret_file beside token_url")
        return self


class FhirSending(Section):
    """How a ``kind = "fhir"`` destination (FHIR R4) is told."""

    accession_system: str = ""
    """Namespace of accession numbers, e.g. "http://hospital.example/accession"."""
    patient_system: str = ""
    """Namespace of patient IDs; with several issuers, leave it empty: the issuer is named then."""
    identifier_system: str = "urn:ietf:rfc:3986"
    """Namespace of the identifiers we derive (urn:oid:...), by which a repeat is recognised."""
    service_request: Annotated[str, AfterValidator(_search)] = ""
    """Search that finds the order, e.g. "identifier=http://hospital.example/accession|{accession}";
    empty = ServiceRequest.priority is left alone."""
    patch: bool = True
    """Change the order by JSON Patch; false: read, change and write it (PUT)."""
    priorities: dict[Level, Priority] = Field(
        default={
            Level.STAT: "stat",
            Level.HIGH: "asap",
            Level.MEDIUM: "urgent",
            Level.LOW: "routine",
        }
    )
    oauth: OAuthClient = OAuthClient()

    @model_validator(mode="after")
    def _codes(self) -> Self:
        missing = [level.value for level in Level if level not in self.priorities]
        if missing:
            raise ValueError(f"priorities lacks {', '.join(missing)}")
        return self
