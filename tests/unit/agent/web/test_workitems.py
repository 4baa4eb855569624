"""UPS-RS as a client sees it: statuses, Warning headers, and the event channel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from factories import rows
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from sqlalchemy.orm import Session, sessionmaker
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from agent.access.principal import Principal, Role
from agent.settings import PrioritySettings, UpsSettings
from agent.web.access import Requires
from agent.web.server import WebServer
from agent.web.workitems import routes
from agent.workitems import following
from agent.workitems.service import Workitems
from db.models import Study
from dicom_nodes import ups

LOCK = "2.25.4711"
TASK = {
    "00741000": {"vr": "CS", "Value": ["SCHEDULED"]},
    "00741200": {"vr": "CS", "Value": ["HIGH"]},
    "00741204": {"vr": "LO", "Value": ["Read CT head"]},
    "00404005": {"vr": "DT", "Value": ["20261123083000"]},
    "00404041": {"vr": "CS", "Value": ["READY"]},
    "00081195": {"vr": "UI"},
    "00100020": {"vr": "LO", "Value": ["PAT9"]},
}


class Machine:
    """Everybody is a machine with a token."""

    login_path = ""

    def identify(self, _connection: Any) -> Principal:
        """Knows everybody."""
        return Principal("pacs", Role.SERVICE)


class Client:
    """Sends UPS-RS requests to an application over a fresh record."""

    def __init__(self, sessions: sessionmaker[Session], **settings: Any) -> None:
        self.sessions = sessions
        given = UpsSettings(**{"accept_created": True, **settings})
        self.workitems = Workitems(sessions, given, clock=lambda: rows.NOW)
        self.app = FastAPI()
        self.app.state.access, self.app.state.other_origins = Machine(), ()
        routes.install(self.app, self.workitems)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """One request below /dicom-web."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                given = {"Content-Type": "application/dicom+json", **headers}
                content = json.dumps(body) if body is not None else None
                return await client.request(
                    method, f"/dicom-web{path}", content=content, headers=given
                )

        return asyncio.run(ask())

    def create(self, uid: str, **values: Any) -> httpx.Response:
        """POST /workitems."""
        return self.send("POST", f"/workitems?workitem={uid}", [{**TASK, **values}])

    def state(self, uid: str, state: str, lock: str = LOCK) -> httpx.Response:
        """PUT /workitems/{uid}/state."""
        body: dict[str, Any] = {"00741000": {"vr": "CS", "Value": [state]}}
        if lock:
            body["00081195"] = {"vr": "UI", "Value": [lock]}
        return self.send("PUT", f"/workitems/{uid}/state", [body])

    def study(self, **values: Any) -> str:
        """A study with its reading task; the task's UID."""
        with self.sessions.begin() as session:
            study = rows.study(session, **values)
            row = following.follow(session, study, rows.NOW, PrioritySettings())
            assert row is not None
            return row.uid


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """An application without workitems."""
    return Client(rows.sessions(tmp_path))


def test_a_workitem_is_created_once_and_retrieved_without_its_lock(client: Client) -> None:
    """201 with its address, 409 for a second one, 404 for none."""
    made = client.create("2.25.1")
    assert (made.status_code, made.headers["Content-Location"]) == (
        201,
        "/dicom-web/workitems/2.25.1",
    )
    assert client.create("2.25.1").status_code == 409
    got = client.send("GET", "/workitems/2.25.1")
    assert (got.status_code, got.headers["Content-Type"]) == (200, "application/dicom+json")
    (item,) = got.json()
    assert item["00741204"]["Value"] == ["Read CT head"]
    assert "00081195" not in item
    assert client.send("GET", "/workitems/2.25.2").status_code == 404


@pytest.mark.parametrize(
    "values",
    [
        {"00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}},
        {"00081195": {"vr": "UI", "Value": [LOCK]}},
        {"00741200": {"vr": "CS", "Value": ["URGENT"]}},
        {"00741204": {"vr": "LO"}},
    ],
)
def test_a_workitem_that_breaks_the_rules_is_not_created(client: Client, values: Any) -> None:
    """400, with a Warning."""
    answer = client.create("2.25.1", **values)
    assert (answer.status_code, answer.headers["Warning"][:3]) == (400, "299")


def test_others_create_nothing_unless_the_site_says_so(tmp_path: Path) -> None:
    """403 by default."""
    assert Client(rows.sessions(tmp_path), accept_created=False).create("2.25.1").status_code == 403


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/dicom+json", 400),
        (b"[1]", "application/dicom+json", 400),
        (b'[{"00100020": {"vr": "XX"}}]', "application/dicom+json", 400),
        (b"[" * 3000, "application/dicom+json", 400),
        (b"<xml/>", "application/xml", 415),
        (b"[]", "text/plain", 415),
    ],
)
def test_what_is_no_dataset_is_refused(
    client: Client, content: bytes, kind: str, status: int
) -> None:
    """With a status of its own, and without quoting it."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as session:
            return await session.post(
                "/dicom-web/workitems", content=content, headers={"Content-Type": kind}
            )

    assert asyncio.run(ask()).status_code == status


def test_search_answers_in_reading_order_by_keyword_tag_and_path(client: Client) -> None:
    """204 for nothing; limit and offset page with a Warning that there is more."""
    for number, level in enumerate(("LOW", "STAT", "HIGH"), start=1):
        client.study(number=number, priority=level)

    def patients(query: str) -> list[str]:
        found = client.send("GET", f"/workitems?{query}").json()
        return [item["00100020"]["Value"][0] for item in found]

    assert patients("ProcedureStepState=SCHEDULED") == ["PAT0002", "PAT0003", "PAT0001"]
    assert patients("00741200=HIGH") == ["PAT0002", "PAT0003"]
    assert patients("ReferencedRequestSequence.AccessionNumber=ACC0001") == ["PAT0001"]
    assert patients("limit=1&offset=1") == ["PAT0003"]
    assert "more results" in client.send("GET", "/workitems?limit=1").headers["Warning"]
    assert client.send("GET", "/workitems?PatientID=NOBODY").status_code == 204
    assert client.send("GET", "/workitems?NoSuchThing=1").status_code == 400


def test_a_claimed_workitem_is_changed_by_who_holds_the_lock(client: Client) -> None:
    """409 with the standard's Warning otherwise; the study follows to the end."""
    uid = client.study()
    change = [{"00741204": {"vr": "LO", "Value": ["Read first"]}}]
    assert client.send("POST", f"/workitems/{uid}", change).status_code == 200
    missing = client.state(uid, "IN PROGRESS", lock="")
    assert (missing.status_code, "missing" in missing.headers["Warning"]) == (409, True)
    assert client.state(uid, "COMPLETED").status_code == 409
    assert client.state(uid, "IN PROGRESS").status_code == 200
    assert client.state(uid, "IN PROGRESS", lock="2.25.5").status_code == 409
    wrong = client.state(uid, "COMPLETED", lock="2.25.5")
    assert (wrong.status_code, "incorrect" in wrong.headers["Warning"]) == (409, True)
    assert client.send("POST", f"/workitems/{uid}", change).status_code == 409
    held = client.send("POST", f"/workitems/{uid}?transaction-uid={LOCK}", change)
    assert held.status_code == 200
    assert client.state(uid, "COMPLETED").status_code == 200
    again = client.state(uid, "COMPLETED")
    assert (again.status_code, "already" in again.headers["Warning"]) == (200, True)
    assert client.state(uid, "SLEEPING").status_code == 400
    with client.sessions() as session:
        assert session.query(Study).one().reading_state == "read"


def test_the_final_state_of_others_work_needs_what_was_performed(client: Client) -> None:
    """For workitems that we did not schedule nothing is made up."""
    client.create("2.25.1")
    client.state("2.25.1", "IN PROGRESS")
    refused = client.state("2.25.1", "COMPLETED")
    assert refused.status_code == 409
    assert client.state("2.25.1", "CANCELED").status_code == 200


def test_cancel_requests(client: Client) -> None:
    """202 for what nobody does, or somebody does; 409 for what is done, or must be read."""
    client.create("2.25.1")
    assert client.send("POST", "/workitems/2.25.1/cancelrequest").status_code == 202
    again = client.send("POST", "/workitems/2.25.1/cancelrequest/RIS")
    assert (again.status_code, "already" in again.headers["Warning"]) == (202, True)
    assert client.send("POST", f"/workitems/{client.study()}/cancelrequest").status_code == 409
    assert client.send("POST", "/workitems/2.25.3/cancelrequest").status_code == 404


def test_another_sites_page_changes_nothing(client: Client) -> None:
    """Neither with a body nor without."""
    foreign = {"Origin": "http://evil.example"}
    path = f"/workitems/{ups.GLOBAL}/subscribers/AE"
    assert client.send("POST", path, None, **foreign).status_code == 403
    assert client.send("POST", "/workitems", [TASK], **foreign).status_code == 403


def test_every_route_states_its_role(client: Client) -> None:
    """A route without a door would be open to everybody."""
    for route in routes.router(client.workitems).routes:
        assert isinstance(route, APIRoute | APIWebSocketRoute)
        doors = [d.dependency for d in route.dependencies]
        assert any(isinstance(door, Requires) for door in doors), route.path


@pytest.fixture
def served(client: Client) -> Iterator[tuple[Client, str]]:
    """The same application behind a real port."""
    server = WebServer(client.app, "127.0.0.1", 0)
    server.start()
    yield client, f"127.0.0.1:{server.port}"
    server.stop()


def test_a_subscriber_hears_events_over_its_channel(served: tuple[Client, str]) -> None:
    """What came before it opened, and what comes then; nothing twice; no page of others listens."""
    client, host = served
    with httpx.Client(base_url=f"http://{host}/dicom-web") as http:
        uid = client.study(priority="STAT")
        made = http.post(f"/workitems/{ups.GLOBAL}/subscribers/DESK")
        assert made.status_code == 201
        where = made.headers["Content-Location"]
        assert where == f"ws://{host}/dicom-web/subscribers/DESK"
        with connect(where) as channel:
            first = json.loads(channel.recv(timeout=10))
            assert first["00001002"]["Value"] == [1]
            assert first["00001000"]["Value"] == [uid]
            assert first["00741000"]["Value"] == ["SCHEDULED"]
            client.state(uid, "IN PROGRESS")
            second = json.loads(channel.recv(timeout=10))
            assert second["00741000"]["Value"] == ["IN PROGRESS"]
        with pytest.raises(InvalidStatus), connect(where, origin="http://evil.example"):
            pass
        suspended = http.post(f"/workitems/{ups.GLOBAL}/subscribers/DESK/suspend")
        assert suspended.status_code == 200
        assert http.delete(f"/workitems/{ups.GLOBAL}/subscribers/DESK").status_code == 200
        assert http.post("/workitems/2.25.404/subscribers/DESK").status_code == 404
        filtered = f"/workitems/{ups.FILTERED_GLOBAL}/subscribers/DESK"
        assert http.post(filtered).status_code == 400
        keys = {"filter": "ScheduledProcedureStepPriority=HIGH"}
        assert http.post(filtered, params=keys).status_code == 201


def test_a_look_at_a_reading_task_names_its_study_for_the_audit(client: Client) -> None:
    """The path holds the task's UID; the event tells whose examination was looked at."""
    uid = client.study()
    told: list[tuple[str, ...]] = []

    @client.app.middleware("http")
    async def remember(request: Any, call_next: Any) -> Any:
        answer = await call_next(request)
        told.append(request.state.audit_studies)
        return answer

    assert client.send("GET", f"/workitems/{uid}").status_code == 200
    with client.sessions() as session:
        assert told == [(session.query(Study).one().study_uid,)]
