"""Single sign-on against a real provider on this machine: who comes in, and who does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from factories import access, oidc_provider
from joserfc.jwk import ECKey
from sqlalchemy.orm import Session, sessionmaker

from agent import database
from agent.access.oidc import Oidc, role_of
from agent.access.principal import Role
from agent.settings_access import OidcSettings
from db import engine
from db.models import AuditEvent

CALLBACK = "http://127.0.0.1:8080/login/oidc/callback"


@pytest.fixture
def provider() -> Iterator[oidc_provider.Provider]:
    """A provider that is up."""
    with oidc_provider.running() as running:
        yield running


@pytest.fixture
def house(provider: oidc_provider.Provider, tmp_path: Path) -> access.House:
    """An application that asks it."""
    bind = engine.create_engine(f"sqlite:///{tmp_path / 'record.db'}")
    database.upgrade(bind)
    return _house(engine.session_factory(bind), provider)


def _house(record: sessionmaker[Session], provider: oidc_provider.Provider) -> access.House:
    clock = access.Clock()
    provider.now = lambda: clock().timestamp()
    settings = OidcSettings(
        issuer=provider.issuer,
        client_id=oidc_provider.CLIENT_ID,
        groups={"radiology": Role.RADIOLOGIST, "admins": Role.ADMINISTRATOR},
    )
    return access.house(record, oidc=Oidc(settings, CALLBACK, clock), clock=clock)


def _log_in(house: access.House, provider: oidc_provider.Provider, browser: access.Browser) -> Any:
    there = browser.get("/login/oidc", params={"next": "/rules"})
    assert there.status_code == 303
    back = provider.authorize(there.headers["location"])
    return browser.get(back.removeprefix("http://127.0.0.1:8080"))


def test_a_person_of_the_right_group_comes_in_and_where_they_wanted(
    house: access.House, provider: oidc_provider.Provider
):
    """Code, PKCE, signed ID token, group -> role."""
    browser = house.browser()
    answer = _log_in(house, provider, browser)

    assert (answer.status_code, answer.headers["location"]) == (303, "/rules")
    page = browser.get("/")
    assert "doe, radiologist" in page.text
    with house.sessions() as session:
        kinds = list(session.scalars(sa.select(AuditEvent.kind).where(AuditEvent.who == "doe")))
    assert kinds == ["login", "searched"]


def test_nobody_comes_in_without_a_group_that_has_a_role(
    house: access.House, provider: oidc_provider.Provider
):
    """An account of the hospital is not enough."""
    provider.groups = ["kitchen"]
    answer = _log_in(house, provider, house.browser())

    assert answer.status_code == 403
    assert "wlagent=" not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize(
    "bend",
    [
        {"aud": "another"},
        {"iss": "http://evil.example"},
        {"nonce": "replayed"},
        {"exp": 1},
        {"azp": "another"},
    ],
    ids=lambda bend: next(iter(bend)),
)
def test_a_token_that_does_not_fit_lets_nobody_in(
    house: access.House, provider: oidc_provider.Provider, bend: dict[str, Any]
):
    """Every claim that binds it to us, to this login and to now."""
    provider.bend = lambda claims: {**claims, **bend}

    assert _log_in(house, provider, house.browser()).status_code == 403


def test_a_token_signed_by_another_key_lets_nobody_in(
    house: access.House, provider: oidc_provider.Provider
):
    """Even under the same key id."""
    provider.signer = ECKey.generate_key("P-256", {"kid": "1"})

    assert _log_in(house, provider, house.browser()).status_code == 403


def test_a_code_belongs_to_the_browser_that_asked_and_to_one_use(
    house: access.House, provider: oidc_provider.Provider
):
    """Somebody else's login cannot be pushed on a browser; a second use is refused."""
    mine = house.browser()
    back = provider.authorize(mine.get("/login/oidc").headers["location"])
    path = back.removeprefix("http://127.0.0.1:8080")

    assert house.browser().get(path).status_code == 403
    cookies = dict(mine.cookies)
    assert mine.get(path).status_code == 303
    assert house.browser(cookies=cookies).get(path).status_code == 403


def test_a_provider_that_is_down_is_said_without_a_stack(house: access.House):
    """The others of the house go on."""
    settings = OidcSettings(issuer="http://127.0.0.1:9", client_id="x", groups={"g": Role.VIEWER})
    down = access.house(house.sessions, oidc=Oidc(settings, CALLBACK, house.clock), people=False)

    answer = down.browser().get("/login/oidc")

    assert answer.status_code == 502
    assert "does not answer" in answer.text


def test_of_several_groups_the_most_powerful_counts():
    """And what is no list of texts gives nothing."""
    roles = {"a": Role.VIEWER, "b": Role.ADMINISTRATOR}

    assert role_of(["a", "b", "c"], roles) is Role.ADMINISTRATOR
    assert role_of("a", roles) is Role.VIEWER
    assert role_of({"a": 1}, roles) is None
    assert role_of(None, roles) is None
