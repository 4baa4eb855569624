"""Webhook and FHIR: what is said, how it is signed, and that a repeat changes nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import fhir, hl7, http
from pydantic import ValidationError

from agent.delivery.announcements import Announcement, Kind, Priority
from agent.delivery.channels import webhook
from agent.delivery.channels.fhir import FhirChannel
from agent.delivery.channels.webhook import WebhookChannel
from agent.settings import Destination, Level
from dicom_nodes.errors import NodeConfigError, PeerBusy, PeerRefused

KEY = "a key of the site"
ACCESSIONS = "http://hospital.example/accession"


def told(kind: Kind = Kind.PRIORITY, level: Level = Level.STAT) -> Announcement:
    """News of a study."""
    made = hl7.announcement(kind)
    return dataclasses.replace(made, priority=dataclasses.replace(made.priority, level=level))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """The file of the key."""
    path = tmp_path / "hook.key"
    path.write_text(KEY + "\n")
    return path


def hook(url: str, secret: Path, **values: Any) -> WebhookChannel:
    """A channel whose clock stands still."""
    given = {"secret_file": secret, **values}
    destination = Destination(name="hook", kind="webhook", url=url, webhook=given)
    return WebhookChannel(destination, seconds=lambda: 1_800_000_000.9)


def test_a_webhook_is_signed_over_time_and_body_and_names_nobody_in_the_url(secret: Path) -> None:
    """The receiver can verify it with the key alone; a repeat is known by its key and body."""
    with http.serving(lambda _: http.Answer(204)) as server:
        channel = hook(f"{server.url}/hook", secret)
        for _ in range(2):
            channel.announce(told(Kind.REPORT))
    first, second = server.requests
    at = first.headers["X-Worklist-Agent-Timestamp"]
    signed = hmac.new(KEY.encode(), at.encode() + b"." + first.body, hashlib.sha256).hexdigest()
    assert first.headers["X-Worklist-Agent-Signature"] == f"v1={signed}"
    assert at == "1800000000"
    assert first.path == "/dicom-web/hook"
    assert first.headers["Idempotency-Key"] == "ABCDEFGHIJ2345672345"
    assert first.body == second.body
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


def test_a_webhook_names_what_the_site_asked_for_and_no_more(secret: Path) -> None:
    """Nothing of the patient by default."""
    plain = webhook.body(told(Kind.REPORT), hook("http://x", secret).destination.webhook)
    for secret_text in (b"PAT|1", b"ller", b"19600101"):
        assert secret_text not in plain
    said = json.loads(plain)
    assert said["study"]["accession_number"] == "ACC&1"
    assert said["priority"]["level"] == "STAT"
    assert said["models"][0]["findings"][0]["display"] == "Intracranial hemorrhage"
    assert "Research use only" in said["caution"]

    everything = hook("http://x", secret, identifiers=("patient_id", "patient_name"))
    named = json.loads(webhook.body(told(), everything.destination.webhook))
    assert named["study"]["patient_id"] == "PAT|1"
    assert "accession_number" not in named["study"]
    assert "models" not in named


def test_a_webhook_without_its_key_is_not_configured(tmp_path: Path) -> None:
    """Neither without a file nor with an empty one does anything go out unsigned."""
    with pytest.raises(ValidationError, match="secret_file"):
        Destination(name="h", kind="webhook", url="http://x")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with (
        http.serving(lambda _: http.Answer(204)) as server,
        pytest.raises(NodeConfigError, match="empty"),
    ):
        hook(server.url, empty).announce(told())
    assert server.requests == []


class Site:
    """A FHIR server and channels to it."""

    def __init__(self, server: fhir.FhirServer, url: str) -> None:
        self.server = server
        self.url = url
        self.requests: list[http.Request] = []

    def channel(self, **values: Any) -> FhirChannel:
        """A channel with these settings."""
        given = {"accession_system": ACCESSIONS, **values}
        return FhirChannel(Destination(name="ehr", kind="fhir", url=self.url, fhir=given))

    def order(self, **values: Any) -> None:
        """Hold an order of the study."""
        self.server.add(
            {
                "resourceType": "ServiceRequest",
                "status": "active",
                "intent": "order",
                "subject": {"reference": "Patient/1"},
                "identifier": [{"system": ACCESSIONS, "value": "ACC&1"}],
                **values,
            }
        )

    def one(self, kind: str) -> dict[str, Any]:
        """The only resource of a kind."""
        (resource,) = self.server.of(kind)
        return resource


@pytest.fixture
def site() -> Iterator[Site]:
    """An empty server."""
    server = fhir.FhirServer()
    with http.serving(server.answer) as running:
        made = Site(server, running.url)
        made.requests = running.requests
        yield made


def test_a_task_is_created_once_and_reprioritized(site: Site) -> None:
    """One Task a study, whatever is repeated; named by identifiers, nothing in a URL."""
    channel = site.channel()
    channel.announce(told(level=Level.MEDIUM))
    assert site.one("Task")["priority"] == "urgent"
    channel.announce(told(level=Level.STAT))
    version = site.one("Task")["meta"]["versionId"]
    channel.announce(told(level=Level.STAT))
    task = site.one("Task")
    assert (task["priority"], task["status"], task["intent"]) == ("stat", "requested", "order")
    assert task["meta"]["versionId"] == version
    assert task["focus"]["identifier"]["value"] == "ACC&1"
    assert task["input"][0]["valueReference"]["identifier"]["value"] == "urn:oid:1.2.3.4"
    assert fhir.problems(task) == []
    for request in site.requests:
        assert "ACC" not in request.path
        assert "1.2.3.4" not in request.path


@pytest.mark.parametrize("status", ["in-progress", "completed", "cancelled"])
def test_a_task_that_somebody_has_begun_is_left_alone(site: Site, status: str) -> None:
    """What we wanted read is being read."""
    channel = site.channel()
    channel.announce(told(level=Level.LOW))
    site.one("Task")["status"] = status
    channel.announce(told())
    assert (site.one("Task")["priority"], site.one("Task")["status"]) == ("routine", status)


@pytest.mark.parametrize("patch", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [({}, "stat"), ({"priority": "urgent"}, "stat"), ({"priority": "stat"}, "stat")],
)
def test_the_order_is_raised(site: Site, patch: bool, before: dict[str, str], after: str) -> None:
    """By patch or by update; twice is once."""
    site.order(**before)
    channel = site.channel(service_request=f"identifier={ACCESSIONS}|{{accession}}", patch=patch)
    for _ in range(2):
        channel.announce(told())
    order = site.one("ServiceRequest")
    assert order["priority"] == after
    assert order["meta"]["versionId"] == ("1" if before.get("priority") == "stat" else "2")


def test_the_order_is_never_lowered_and_never_guessed(site: Site) -> None:
    """One that is not there yet is asked for again; several are refused for good."""
    channel = site.channel(service_request=f"identifier={ACCESSIONS}|{{accession}}")
    with pytest.raises(PeerBusy, match="not there yet"):
        channel.announce(told())
    site.order(priority="stat")
    channel.announce(told(level=Level.LOW))
    assert site.one("ServiceRequest")["priority"] == "stat"
    site.order()
    with pytest.raises(PeerRefused, match="2 ServiceRequest") as caught:
        channel.announce(told())
    assert "ACC" not in str(caught.value)


def test_a_change_by_others_in_between_is_tried_again(site: Site) -> None:
    """The version decides: their change is not overwritten."""
    channel = site.channel()
    channel.announce(told(level=Level.LOW))

    def meanwhile() -> None:
        site.one("Task")["meta"]["versionId"] = "7"
        site.server.before_write = lambda: None

    site.server.before_write = meanwhile
    with pytest.raises(PeerBusy):
        channel.announce(told())
    channel.announce(told())
    assert site.one("Task")["priority"] == "stat"


def test_a_report_is_preliminary_and_coded_and_ends_when_it_is_signed(site: Site) -> None:
    """Created once, changed while preliminary; a final one is the radiologist's."""
    channel = site.channel()
    for _ in range(2):
        channel.announce(told(Kind.REPORT))
    report = site.one("DiagnosticReport")
    assert report["status"] == "preliminary"
    assert "Research use only" in report["conclusion"]
    assert "Intracranial hemorrhage 93%" in report["conclusion"]
    assert report["conclusionCode"][0]["text"] == "Intracranial hemorrhage"
    assert report["meta"]["versionId"] == "1"
    assert fhir.problems(report) == []
    report["status"] = "final"
    changed = dataclasses.replace(
        told(Kind.REPORT), priority=Priority(Level.LOW, 0.1, "nothing", "")
    )
    channel.announce(changed)
    assert site.one("DiagnosticReport")["status"] == "final"
    assert "STAT" in site.one("DiagnosticReport")["conclusion"]


def test_a_token_is_fetched_with_the_clients_credentials(site: Site, tmp_path: Path) -> None:
    """By OAuth2 or from a file; without it nothing is taken."""
    site.server.token = "t0ken"
    with pytest.raises(PeerRefused, match="not allowed"):
        site.channel().announce(told())
    key = tmp_path / "client.key"
    key.write_text("s3cret")
    oauth = {
        "token_url": f"{site.url}/token",
        "client_id": "agent",
        "client_secret_file": key,
        "scope": "system/Task.write",
    }
    site.channel(oauth=oauth).announce(told())
    assert len(site.server.of("Task")) == 1
    site.channel(oauth=oauth).check()


def test_a_preview_says_what_would_be_sent_and_sends_nothing(site: Site) -> None:
    """Task, and what would be done to the order."""
    channel = site.channel(service_request=f"identifier={ACCESSIONS}|{{accession}}")
    text = channel.preview(told())
    assert '"priority": "stat"' in text
    assert "ServiceRequest?identifier" in text
    assert '"preliminary"' in channel.preview(told(Kind.REPORT))
    assert site.requests == []
