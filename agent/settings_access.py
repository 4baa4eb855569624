"""Settings of access and audit: who logs in how, and where the audit trail is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from agent.access.principal import Role
from agent.section import Section
from agent.settings_base import Network, Port, TlsSettings


class PasswordSettings(Section):
    """How passwords of local accounts are kept (Argon2id), and how often one may guess."""

    min_length: Annotated[int, Field(ge=8)] = 12
    time_cost: PositiveInt = 3
    memory_kib: Annotated[int, Field(ge=8)] = 65536
    parallelism: PositiveInt = 4
    failures_per_account: PositiveInt = 5
    failures_per_address: PositiveInt = 20
    failure_window_s: PositiveFloat = 900.0
    """After so many failures within this time, the account or address has to wait."""


class SessionSettings(Section):
    """How long a browser stays logged in."""

    idle_minutes: PositiveFloat = 60.0
    """Without anything done by hand; a page that refreshes itself does not count."""
    absolute_hours: PositiveFloat = 12.0


class OidcSettings(Section):
    """Single sign-on by OpenID Connect: authorization code with PKCE."""

    issuer: str = ""
    client_id: str = ""
    client_secret_file: Path | None = None
    """None for a public client."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    groups: dict[str, Role] = Field(default={})
    """Group -> role; of several the most powerful. Nobody without one of these comes in."""
    ca: Path | None = None
    """Authority of the issuer's certificate, if it is not a public one."""
    timeout_s: PositiveFloat = 10.0


class WebAccess(Section):
    """What `[web]` says about who comes in."""

    host: str = "127.0.0.1"
    auth: Literal["none", "local", "oidc"] = "none"
    """"none" only on this machine, or behind a proxy that authenticates."""
    public_url: str = ""
    """Address in the browser, e.g. ``https://worklist.example.org``, where it is not ours."""
    behind_proxy: bool = False
    """A proxy in front of us does TLS (and, with ``user_header``, the login)."""
    insecure: bool = False
    """Serve other machines without login or TLS. Never with real patients."""
    trusted_proxies: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")
    """Who may name a user (``user_header``) or a client's address (X-Forwarded-For)."""
    user_header_role: Role = Role.RADIOLOGIST
    """Role of users whom the proxy names."""
    tls: TlsSettings = TlsSettings()
    """Certificate and key to serve the page over TLS."""
    passwords: PasswordSettings = PasswordSettings()
    sessions: SessionSettings = SessionSettings()
    oidc: OidcSettings = OidcSettings()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.auth == "oidc" and not (self.oidc.issuer and self.oidc.client_id):
            raise ValueError('auth = "oidc" needs oidc.issuer and oidc.client_id')
        if self.auth == "oidc" and not self.oidc.groups:
            raise ValueError('auth = "oidc" needs oidc.groups, else nobody has a role')
        if self.public_url and not self.public_url.startswith(("https://", "http://")):
            raise ValueError("public_url starts with https:// (or http://)")
        return self


class AuditSettings(Section):
    """The audit trail, and the audit repository it is sent to (DICOM PS3.15 A.5, syslog)."""

    repository: str = ""
    """Host of the audit repository; empty = the trail stays in our database."""
    port: Port = 6514
    transport: Literal["tls", "udp"] = "tls"
    """RFC 5425, or RFC 5426: a datagram that is lost is lost."""
    tls: TlsSettings = TlsSettings()
    """``ca`` of the repository; certificate and key if it asks for ours."""
    timeout_s: PositiveFloat = 10.0
    every_s: PositiveFloat = 5.0
    """How often waiting events are sent."""
    keep_days: PositiveFloat = 2190.0
    """How long the trail is kept here; what was not sent is kept until it is."""
    repeat_s: Annotated[float, Field(ge=0)] = 300.0
    """The same look at the same study by the same person counts once in this time; 0 = always."""
    source_id: str = "worklist-agent"
    """AuditSourceID."""
    site: str = ""
    """AuditEnterpriseSiteID."""
