"""The guards: headers on everything, loopback names only, small bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.health import Check, Health, Severity
from agent.web import security


@pytest.mark.parametrize(
    "path", ["/", "/api/worklist", "/studies/none", "/metrics", "/healthz", "/static/worklist.css"]
)
def test_every_answer_carries_the_security_headers(web: Any, path: str):
    """Pages, JSON, errors and files."""
    headers = web.client().get(path).headers

    for name, value in security.SECURITY_HEADERS.items():
        assert value == headers[name]


def test_a_failure_carries_them_too_and_tells_nothing(web: Any):
    """The 500 answer is made outside of the middleware."""
    web.retry_error = RuntimeError("Doe^John")
    answer = web.client().post("/api/deliveries/1/retry", json={})

    assert answer.status_code == 500
    assert answer.headers["cache-control"] == "no-store"
    assert "Doe" not in answer.text


def test_the_policy_allows_no_inline_script_or_style(web: Any):
    """And the pages need none."""
    policy = security.SECURITY_HEADERS["Content-Security-Policy"]
    page = web.client().get("/").text

    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "style=" not in page
    assert "onclick" not in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost:8080", 200),
        ("[::1]:8080", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
def test_bound_to_loopback_it_answers_to_loopback_names_only(web: Any, host: str, status: int):
    """DNS rebinding leaves the attacker's name in the Host header."""
    assert status == web.client().get("/", headers={"Host": host}).status_code


def test_bound_to_an_interface_it_answers_to_any_name(web: Any):
    """Which names a network uses is not ours to know."""
    client = web.client(host="0.0.0.0")

    assert client.get("/", headers={"Host": "worklist.hospital.example"}).status_code == 200


def test_a_large_body_is_refused_unread(web: Any):
    """By its announced length; without one nothing is read either."""
    client = web.client()
    large = b"x" * (security.MAX_BODY_BYTES + 1)

    assert client.post("/api/studies/1/feedback", content=large).status_code == 413
    chunked = client.post("/api/studies/1/feedback", content=_chunks())
    assert chunked.status_code == 411


async def _chunks() -> AsyncIterator[bytes]:
    yield b"{}"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_that_would_load_foreign_scripts_are_off(web: Any, path: str):
    """The schema is there; the viewers of it are not."""
    client = web.client()

    assert client.get(path).status_code == 404
    assert "/api/worklist" in client.get("/api/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("severity", "status"),
    [(Severity.OK, 200), (Severity.DEGRADED, 200), (Severity.DOWN, 503)],
)
def test_ready_says_how_bad_it_is_and_why(web: Any, severity: Severity, status: int):
    """Degraded still serves; down tells the load balancer to go elsewhere."""
    web.health = Health((Check("deliveries", severity, "mend it"),))

    answer = web.client().get("/readyz")

    assert (status, severity.value) == (answer.status_code, answer.json()["status"])
    assert answer.json()["checks"][0]["reason"] == "mend it"
    assert web.client().get("/healthz").status_code == 200


def test_metrics_are_in_prometheus_format(web: Any):
    """Text that a scraper reads."""
    answer = web.client().get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    assert "worklist_agent_associations_open 0.0" in answer.text
