"""Logging in and out: sessions, roles, CSRF, throttling, tokens, and what is written down of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from factories import access, rows
from sqlalchemy.orm import Session, sessionmaker

from agent import database
from agent.access import accounts
from agent.access.principal import Role
from agent.web.routes_login import own_path
from db import engine
from db.models import AccessSession, Account, AuditEvent, Study


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy."""
    path = tmp_path_factory.mktemp("access") / "template.db"
    bind = engine.create_engine(f"sqlite:///{path}")
    database.upgrade(bind)
    bind.dispose()
    return path


@pytest.fixture
def record(template: Path, tmp_path: Path) -> sessionmaker[Session]:
    """A fresh record."""
    copy = tmp_path / "record.db"
    copy.write_bytes(template.read_bytes())
    return engine.session_factory(engine.create_engine(f"sqlite:///{copy}"))


@pytest.fixture
def house(record: sessionmaker[Session]) -> access.House:
    """An application where people log in."""
    return access.house(record)


def _study(house: access.House) -> Study:
    with house.sessions.begin() as session:
        row: Study = rows.study(session)
    return row


def _trail(house: access.House) -> list[tuple[str, str, int]]:
    with house.sessions() as session:
        events = session.scalars(sa.select(AuditEvent).order_by(AuditEvent.id))
        return [(e.kind, e.who, e.outcome) for e in events if e.kind != "users_changed"]


def test_nobody_sees_anything_before_the_login(house: access.House):
    """A person is sent to the form and back to where they wanted to go; a program gets 401."""
    study = _study(house)
    stranger = house.browser()

    page = stranger.get(f"/studies/{study.key}")
    assert (page.status_code, page.headers["location"]) == (
        303,
        f"/login?next=%2Fstudies%2F{study.key}",
    )
    program = stranger.get("/api/worklist", headers={})
    assert (program.status_code, program.headers["www-authenticate"]) == (401, "Bearer")
    assert stranger.get("/healthz").status_code == 200
    assert _trail(house) == []


def test_a_session_is_a_digest_in_the_record_and_a_guarded_cookie(house: access.House):
    """Who reads the database cannot log in; scripts and other sites cannot use the cookie."""
    browser = house.browser()
    answer = browser.log_in("rad", next="/studies/1")

    assert answer.headers["location"] == "/studies/1"
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("wlagent="))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    with house.sessions() as session:
        row = session.execute(sa.select(AccessSession)).scalar_one()
        account = session.execute(sa.select(Account).where(Account.name == "rad")).scalar_one()
    assert row.token_sha256 not in cookie
    assert browser.cookies["wlagent"] not in (row.token_sha256, account.password_hash)
    assert account.password_hash.startswith("$argon2id$")
    assert browser.get("/").status_code == 200


def test_behind_tls_the_cookie_is_secure_and_bound_to_the_host(record: sessionmaker[Session]):
    """The __Host- prefix keeps other hosts and plain HTTP from setting it."""
    house = access.house(record, behind_proxy=True)
    browser = house.browser(base="https://127.0.0.1:8080")

    cookies = browser.log_in("rad").headers.get_list("set-cookie")

    (cookie,) = [c for c in cookies if c.startswith("__Host-wlagent=")]
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


def test_every_login_gives_a_new_session_and_ends_the_old_one(house: access.House):
    """A cookie that somebody planted before the login is worth nothing after it."""
    browser = house.logged_in()
    old = dict(browser.cookies)
    browser.log_in("rad")

    assert browser.cookies["wlagent"] != old["wlagent"]
    assert house.browser(cookies=old).get("/").status_code == 303


@pytest.mark.parametrize(
    ("minutes", "asked", "status"),
    [(59, "/", 200), (61, "/", 303)],
)
def test_an_idle_session_ends(house: access.House, minutes: float, asked: str, status: int):
    """After an hour without a request by hand."""
    browser = house.logged_in()
    house.clock.advance(minutes=minutes)

    assert browser.get(asked).status_code == status


def test_a_page_that_refreshes_itself_keeps_no_session_alive(house: access.House):
    """Somebody left the room; the list is still open."""
    browser = house.logged_in()
    for _ in range(2):
        house.clock.advance(minutes=31)
        browser.get("/fragments/worklist")

    assert browser.get("/").status_code == 303


def test_a_session_ends_after_its_day_however_busy(house: access.House):
    """Twelve hours."""
    browser = house.logged_in()
    for _ in range(24):
        house.clock.advance(minutes=29)
        assert browser.get("/").status_code == 200
    house.clock.advance(minutes=29)

    assert browser.get("/").status_code == 303


def test_log_out_ends_the_session_for_every_copy_of_its_cookie(house: access.House):
    """In the record, not only in the browser."""
    browser = house.logged_in()
    copy = dict(browser.cookies)

    assert browser.post("/logout", data={"csrf_token": "wrong"}).status_code == 403
    assert browser.post("/logout", data={"csrf_token": browser.csrf()}).status_code == 303
    assert house.browser(cookies=copy).get("/").status_code == 303


def test_a_change_without_the_pages_token_is_refused(house: access.House):
    """Another site can make a browser send the cookie, but does not know the token."""
    study = _study(house)
    browser = house.logged_in()
    path, body = f"/api/studies/{study.key}/reading-state", {"state": "read"}

    assert browser.post(path, json=body).status_code == 403
    stolen = house.logged_in("boss").csrf()
    assert browser.post(path, json=body, headers={"X-CSRF-Token": stolen}).status_code == 403
    right = {"X-CSRF-Token": browser.csrf()}
    assert browser.post(path, json=body, headers=right).status_code == 200
    assert ("study_changed", "rad", 0) in _trail(house)


def test_a_viewer_looks_and_changes_nothing(house: access.House):
    """403, and the attempt is in the trail."""
    study = _study(house)
    viewer = house.logged_in("view")
    token = {"X-CSRF-Token": viewer.csrf()}

    path = f"/api/studies/{study.key}/reading-state"
    assert viewer.post(path, json={"state": "read"}, headers=token).status_code == 403
    assert _trail(house)[-1] == ("access_refused", "view", 4)


def test_the_role_of_today_counts(house: access.House):
    """Not the one of the login; a disabled account is out at once."""
    browser = house.logged_in()
    with house.sessions.begin() as session:
        accounts.set_disabled(session, "rad", True, house.clock())

    assert browser.get("/").status_code == 303
    assert house.browser().log_in("rad").status_code == 401


def test_guessing_is_slowed_down_by_account_and_by_address(record: sessionmaker[Session]):
    """The right password does not help either until the time is over; others are not held up."""
    house = access.house(record)
    for _ in range(5):
        assert house.browser(address="10.0.0.9").log_in("rad", "wrong").status_code == 401
    answer = house.browser(address="10.0.0.8").log_in("rad")

    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 800
    assert house.browser(address="10.0.0.8").log_in("view").status_code == 303
    for n in range(15):
        house.browser(address="10.0.0.9").log_in(f"guess{n}", "wrong")
    assert house.browser(address="10.0.0.9").log_in("boss").status_code == 429
    house.clock.advance(minutes=16)
    assert house.browser(address="10.0.0.9").log_in("rad").status_code == 303


def test_a_stranger_cannot_tell_a_wrong_name_from_a_wrong_password(house: access.House):
    """Same status, same words."""
    wrong_name = house.browser().log_in("nobody")
    wrong_password = house.browser().log_in("rad", "wrong")

    assert wrong_name.status_code == wrong_password.status_code == 401
    words = "Name or password is wrong, or the account is disabled."
    assert words in wrong_name.text
    assert words in wrong_password.text


def test_a_form_of_another_site_cannot_log_anybody_in(house: access.House):
    """Without the cookie of our form its token is worth nothing."""
    token = access.field_value(house.browser().get("/login").text, "token")
    form = {"name": "rad", "password": access.PASSWORD, "token": token}

    assert house.browser().post("/login", data=form).status_code == 403


@pytest.mark.parametrize("path", ["https://evil.example", "//evil.example", "/\\evil.example", "x"])
def test_after_the_login_nobody_is_sent_elsewhere(path: str):
    """`next` is a path of ours."""
    assert own_path(path) == "/"


def test_a_machines_token_opens_what_its_role_may_until_it_ends(house: access.House):
    """No CSRF token: a browser never sends it by itself."""
    with house.sessions.begin() as session:
        token = accounts.issue_token(session, "viewer-bot", Role.SERVICE, 1, house.clock())
    machine = house.browser()
    bearer = {"Authorization": f"Bearer {token}"}

    assert machine.get("/api/worklist", headers=bearer).status_code == 200
    assert machine.post("/api/studies/1/retry", json={}, headers=bearer).status_code == 403
    house.clock.advance(days=1.1)
    assert machine.get("/api/worklist", headers=bearer).status_code == 401
    assert _trail(house)[-1] == ("access_refused", "unknown", 8)
    with house.sessions() as session:
        assert token not in str([vars(t) for t in session.scalars(sa.select(AuditEvent))])


def test_every_look_at_a_study_is_in_the_trail_once_in_a_while(house: access.House):
    """Page, picture and JSON are one look; after five minutes it is another."""
    study = _study(house)
    browser = house.logged_in()
    for path in (f"/studies/{study.key}", f"/api/studies/{study.key}", f"/studies/{study.id}"):
        assert browser.get(path).status_code == 200
    browser.get("/studies/none")
    house.clock.advance(minutes=6)
    browser.get(f"/fragments/studies/{study.key}")

    with house.sessions() as session:
        looks = [
            (e.who, e.role, e.study_uid, e.study_key, e.patient_id, e.address, e.detail)
            for e in session.scalars(sa.select(AuditEvent).where(AuditEvent.kind == "study_viewed"))
        ]
    one = ("rad", "radiologist", study.study_uid, study.key, study.patient_id, "127.0.0.1")
    assert set(looks) <= {
        (*one, f"GET {p}") for p in ("/studies/{reference}", "/fragments/studies/{reference}")
    }
    assert 2 <= len(looks) <= 3


def test_login_logout_and_failures_are_in_the_trail(house: access.House):
    """In their order, with who and how it went."""
    browser = house.browser()
    browser.log_in("rad", "wrong")
    browser.log_in("rad")
    browser.post("/logout", data={"csrf_token": browser.csrf()})

    assert _trail(house) == [
        ("login_failed", "rad", 8),
        ("login", "rad", 0),
        ("searched", "rad", 0),
        ("logout", "rad", 0),
    ]


def test_what_cannot_be_audited_is_not_shown(house: access.House):
    """The answer fails, it does not slip through."""
    browser = house.logged_in()
    with house.sessions.begin() as session:
        session.execute(sa.text("DROP TABLE audit_event"))

    answer = browser.get("/api/worklist")

    assert answer.status_code == 500
    assert "studies" not in answer.text
