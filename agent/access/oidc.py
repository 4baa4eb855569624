"""OpenID Connect: authorization code with PKCE; the ID token is verified, groups become a role."""

from __future__ import annotations

import collections
import datetime as dt
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from agent.access import secrets
from agent.access.errors import AccessError, LoginRefused
from agent.access.principal import Role
from agent.clock import Clock
from agent.settings_access import OidcSettings

LIFETIME = dt.timedelta(minutes=10)
METADATA_LIFETIME = dt.timedelta(hours=1)
MAX_PENDING = 1000
LEEWAY_S = 60
ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "RS512", "EdDSA"]
#: Most powerful first.
RANKING = (Role.ADMINISTRATOR, Role.RADIOLOGIST, Role.VIEWER)


@dataclass(frozen=True)
class Pending:
    """A login that was begun: what its answer has to fit."""

    nonce: str
    verifier: str
    next_path: str
    begun_at: dt.datetime


@dataclass(frozen=True)
class Person:
    """Whom the provider named."""

    name: str
    role: Role
    next_path: str


class Oidc:
    """One provider. Logins under way are kept in memory: a restart makes people begin again."""

    def __init__(self, settings: OidcSettings, redirect_uri: str, clock: Clock) -> None:
        self._settings = settings
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._pending: collections.OrderedDict[str, Pending] = collections.OrderedDict()
        self._metadata: tuple[dt.datetime, dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def begin(self, next_path: str) -> tuple[str, str]:
        """The provider's address to go to, and the state that the browser must bring back.

        Raises:
            AccessError: the provider does not answer or is not the configured one.
        """
        endpoint = self._discover()["authorization_endpoint"]
        state, nonce, verifier = (secrets.new_secret() for _ in range(3))
        with self._session() as client:
            url, _ = client.create_authorization_url(
                endpoint,
                state=state,
                nonce=nonce,
                code_challenge=create_s256_code_challenge(verifier),
                code_challenge_method="S256",
            )
        with self._lock:
            pending = Pending(nonce, verifier, next_path, self._clock())
            self._pending[secrets.digest(state)] = pending
            while len(self._pending) > MAX_PENDING:
                self._pending.popitem(last=False)
        return url, state

    def finish(self, code: str, state: str) -> Person:
        """Who came back with this code.

        Raises:
            LoginRefused: not begun here, too late, not verified, or in no group with a role.
            AccessError: the provider does not answer.
        """
        with self._lock:
            pending = self._pending.pop(secrets.digest(state), None)
        if pending is None or self._clock() > pending.begun_at + LIFETIME:
            raise LoginRefused("this login was not begun here, or took too long; begin again")
        claims = self._verified(self._id_token(code, pending.verifier), pending.nonce)
        role = role_of(claims.get(self._settings.groups_claim), self._settings.groups)
        if role is None:
            raise LoginRefused("none of your groups has a role here; ask an administrator")
        name = str(claims.get(self._settings.name_claim) or claims["sub"])
        return Person(name[:128], role, pending.next_path)

    def _id_token(self, code: str, verifier: str) -> str:
        endpoint = self._discover()["token_endpoint"]
        try:
            with self._session() as client:
                answer = client.fetch_token(
                    endpoint,
                    code=code,
                    code_verifier=verifier,
                    grant_type="authorization_code",
                    timeout=self._settings.timeout_s,
                )
        except Exception as error:  # whatever the libraries raise, nobody comes in
            raise LoginRefused("the provider did not confirm the login; begin again") from error
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LoginRefused("the provider sent no ID token; scope openid is needed")
        return token

    def _verified(self, token: str, nonce: str) -> dict[str, Any]:
        """The claims of an ID token (OpenID Connect Core 3.1.3.7)."""
        metadata = self._discover()
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock().timestamp()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": metadata["issuer"]},
            aud={"essential": True, "value": self._settings.client_id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        keys = KeySet.import_key_set(self._get(metadata["jwks_uri"]))  # type: ignore[arg-type]
        try:
            decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
            registry.validate(decoded.claims)
        except (JoseError, ValueError) as error:
            raise LoginRefused("the provider's ID token does not fit; begin again") from error
        azp = decoded.claims.get("azp")
        if azp is not None and azp != self._settings.client_id:
            raise LoginRefused("the provider's ID token is for another application")
        return dict(decoded.claims)

    def _discover(self) -> dict[str, Any]:
        now = self._clock()
        if self._metadata and now < self._metadata[0] + METADATA_LIFETIME:
            return self._metadata[1]
        issuer = self._settings.issuer.rstrip("/")
        metadata = self._get(f"{issuer}/.well-known/openid-configuration")
        if str(metadata.get("issuer", "")).rstrip("/") != issuer:
            raise AccessError(f"web.oidc.issuer {issuer}: the provider calls itself otherwise")
        for key in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            _check_endpoint(key, str(metadata.get(key, "")), issuer)
        self._metadata = (now, metadata)
        return metadata

    def _get(self, url: str) -> dict[str, Any]:
        try:
            with self._session() as client:
                answer = client.get(url, timeout=self._settings.timeout_s, withhold_token=True)
                answer.raise_for_status()
                body = answer.json()
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            host = urlsplit(url).netloc
            raise AccessError(f"web.oidc: {host} does not answer; check issuer and ca") from error
        if not isinstance(body, dict):
            raise AccessError(f"web.oidc: {urlsplit(url).netloc} does not answer as a provider")
        return body

    def _session(self) -> OAuth2Session:
        secret_file = self._settings.client_secret_file
        secret = secret_file.read_text().strip() if secret_file else None
        session = OAuth2Session(
            self._settings.client_id,
            secret,
            scope=" ".join(self._settings.scopes),
            redirect_uri=self._redirect_uri,
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
        )
        if self._settings.ca:
            session.verify = str(self._settings.ca)
        return session


def role_of(groups: Any, roles: Mapping[str, Role]) -> Role | None:
    """The most powerful role of somebody's groups; None when no group has one."""
    named = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
    found = {roles[group] for group in named if isinstance(group, str) and group in roles}
    return next((role for role in RANKING if role in found), None)


def _check_endpoint(key: str, url: str, issuer: str) -> None:
    """Codes and tokens go over TLS, unless the provider is on this machine for a test."""
    if not url.startswith("https://" if issuer.startswith("https://") else "http"):
        raise AccessError(f"web.oidc: the provider names no usable {key}")
