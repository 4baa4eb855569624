"""Reading state, feedback and retries: recorded once, only from our own page."""

from __future__ import annotations

from typing import Any

import pytest
from factories import rows
from sqlalchemy import select
from sqlalchemy.orm import Session

from agent.errors import AgentError
from db.models import Event, ReadingFeedback, Study
from db.states import ReadingState

READ = {"state": "read"}


@pytest.fixture
def study(web: Any) -> Study:
    """One open study."""
    with web.sessions.begin() as session:
        row: Study = rows.study(session)
    return row


def _events(session: Session) -> list[Event]:
    return list(session.scalars(select(Event).order_by(Event.id)))


def test_the_reading_state_changes_with_an_event(web: Any, study: Study):
    """Who, when, from, to."""
    answer = web.client().post(f"/api/studies/{study.key}/reading-state", json=READ)

    assert (answer.status_code, answer.json()) == (200, {"reading_state": "read"})
    with web.sessions() as session:
        assert session.get_one(Study, study.id).reading_state == ReadingState.READ
        (event,) = _events(session)
    assert (
        event.kind,
        event.from_state,
        event.to_state,
        event.who,
        event.at,
    ) == ("reading_state_changed", "unread", "read", "radiologist", rows.NOW)


def test_setting_the_same_reading_state_twice_is_one_change(web: Any, study: Study):
    """A repeated click leaves one event."""
    client = web.client()
    for _ in range(2):
        assert client.post(f"/api/studies/{study.key}/reading-state", json=READ).status_code == 200

    with web.sessions() as session:
        assert len(_events(session)) == 1


@pytest.mark.parametrize("kind", ["acknowledged", "agreed", "disagreed"])
def test_feedback_is_kept_with_an_event(web: Any, study: Study, kind: str):
    """For prospective evaluation."""
    body = {"kind": kind, "text": "calcification"}

    answer = web.client().post(f"/api/studies/{study.id}/feedback", json=body)

    assert answer.status_code == 201
    with web.sessions() as session:
        (kept,) = session.scalars(select(ReadingFeedback))
        (event,) = _events(session)
    assert (kind, "calcification", study.id) == (kept.kind, kept.text, kept.study_id)
    assert ("feedback_given", kind) == (event.kind, event.why)


def test_a_trusted_proxy_names_the_reader(web: Any, study: Study):
    """Only when `web.user_header` says so; otherwise the header is nobody's word."""
    path = f"/api/studies/{study.key}/feedback"
    body, headers = {"kind": "agreed"}, {"X-Remote-User": "dr.example"}

    web.client(user_header="X-Remote-User").post(path, json=body, headers=headers)
    web.client().post(path, json=body, headers=headers)

    with web.sessions() as session:
        assert [f.who for f in session.scalars(select(ReadingFeedback))] == [
            "dr.example",
            "radiologist",
        ]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("reading-state", {"state": "lost"}),
        ("reading-state", {}),
        ("reading-state", {"state": "read", "more": 1}),
        ("feedback", {"kind": "report"}),
        ("feedback", {"kind": "agreed", "text": "x" * 4001}),
    ],
)
def test_a_body_that_is_not_understood_is_refused(web: Any, study: Study, path: str, body: Any):
    """Nothing is recorded."""
    answer = web.client().post(f"/api/studies/{study.key}/{path}", json=body)

    assert answer.status_code == 422
    with web.sessions() as session:
        assert _events(session) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_sites_page_cannot_write(web: Any, study: Study, headers: dict[str, str]):
    """Same origin only, by the browser's own word."""
    answer = web.client().post(
        f"/api/studies/{study.key}/reading-state", json=READ, headers=headers
    )

    assert answer.status_code == 403
    with web.sessions() as session:
        assert _events(session) == []


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_what_a_form_can_send_is_refused(web: Any, study: Study, media_type: str):
    """A cross-site form needs no preflight, but cannot send JSON."""
    answer = web.client().post(
        f"/api/studies/{study.key}/reading-state",
        content=b'{"state": "read"}',
        headers={"Content-Type": media_type},
    )

    assert answer.status_code == 415


def test_our_own_page_may_write(web: Any, study: Study):
    """With the headers a browser sends for it."""
    answer = web.client().post(
        f"/api/studies/{study.key}/reading-state",
        json=READ,
        headers={"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"},
    )

    assert answer.status_code == 200


def test_retries_go_to_the_callables_with_the_readers_name(web: Any, study: Study):
    """By database id, whichever way the study was addressed."""
    client = web.client()

    assert client.post(f"/api/studies/{study.key}/retry", json={}).status_code == 202
    assert client.post("/api/deliveries/5/retry", json={}).status_code == 202
    assert [("study", study.id, "radiologist"), ("delivery", 5, "radiologist")] == web.retried


@pytest.mark.parametrize(
    ("error", "status"),
    [(AgentError("it is not failed"), 409), (LookupError(), 404), (RuntimeError("Doe"), 500)],
)
def test_a_retry_that_cannot_be_says_why(web: Any, study: Study, error: Exception, status: int):
    """Our words for our errors; no words of others."""
    web.retry_error = error

    answer = web.client().post(f"/api/studies/{study.key}/retry", json={})

    assert status == answer.status_code
    assert "Doe" not in answer.text


def test_an_unknown_study_cannot_be_changed(web: Any):
    """404 on every write."""
    client = web.client()
    for path, body in (("reading-state", READ), ("feedback", {"kind": "agreed"}), ("retry", {})):
        assert client.post(f"/api/studies/none/{path}", json=body).status_code == 404
