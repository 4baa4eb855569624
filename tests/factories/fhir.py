"""A small FHIR R4 server in memory, as much as a client of Task, orders and reports meets.

Conditional create, search by identifier (POST _search), version-aware update, JSON Patch. It
refuses what R4 does not allow: a resource without its required elements, codes that are not in a
required value set, empty strings, arrays or objects.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from factories import http

#: Required elements (cardinality 1..) of the resources that the agent writes, R4.
REQUIRED = {
    "Task": {"status", "intent"},
    "ServiceRequest": {"status", "intent", "subject"},
    "DiagnosticReport": {"status", "code"},
}
#: Value sets bound as required, R4.
CODES = {
    ("Task", "status"): {
        "draft",
        "requested",
        "received",
        "accepted",
        "rejected",
        "ready",
        "cancelled",
        "in-progress",
        "on-hold",
        "failed",
        "completed",
        "entered-in-error",
    },
    ("Task", "intent"): {"unknown", "proposal", "plan", "order", "original-order", "option"},
    ("Task", "priority"): {"routine", "urgent", "asap", "stat"},
    ("ServiceRequest", "priority"): {"routine", "urgent", "asap", "stat"},
    ("DiagnosticReport", "status"): {
        "registered",
        "partial",
        "preliminary",
        "final",
        "amended",
        "corrected",
        "appended",
        "cancelled",
        "entered-in-error",
        "unknown",
    },
}
JSON = "application/fhir+json"

Resource = dict[str, Any]


@dataclass
class FhirServer:
    """Answers requests; `status` other than 0 is answered to every change instead."""

    status: int = 0
    resources: dict[tuple[str, str], Resource] = field(default_factory=dict)
    token: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    before_write: Callable[[], None] = lambda: None

    def add(self, resource: Resource) -> Resource:
        """Hold a resource, as version 1."""
        kind = resource["resourceType"]
        ident = f"{kind.lower()}-{len(self.resources) + 1}"
        held = {**resource, "id": ident, "meta": {"versionId": "1"}}
        self.resources[kind, ident] = held
        return held

    def of(self, kind: str) -> list[Resource]:
        """All resources of a kind."""
        return [r for (k, _), r in self.resources.items() if k == kind]

    def answer(self, request: http.Request) -> http.Answer:  # noqa: PLR0911 - a table of paths
        """One exchange."""
        with self.lock:
            path = request.path.partition("?")[0].split("/dicom-web/", 1)[-1].strip("/")
            if path == "token":
                return self._token(request)
            if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
                return http.Answer(401, {}, JSON)
            if path == "metadata":
                return http.Answer(200, {"resourceType": "CapabilityStatement"}, JSON)
            if path.endswith("/_search"):
                return self._search(path.split("/")[0], request)
            if self.status:
                return http.Answer(self.status, {"resourceType": "OperationOutcome"}, JSON)
            if request.method == "POST":
                return self._create(path, request)
            return self._change(tuple(path.split("/")), request)

    def _token(self, request: http.Request) -> http.Answer:
        form = parse_qs(request.body.decode())
        if form.get("grant_type") != ["client_credentials"]:
            return http.Answer(400, {"error": "unsupported_grant_type"}, "application/json")
        if "Authorization" not in request.headers:
            return http.Answer(401, {"error": "invalid_client"}, "application/json")
        said = {"access_token": self.token, "token_type": "Bearer", "expires_in": 300}
        return http.Answer(200, said, "application/json")

    def _search(self, kind: str, request: http.Request) -> http.Answer:
        form = parse_qs(request.body.decode())
        found = self._named(kind, form["identifier"][0])
        entries = [{"resource": one} for one in found]
        return http.Answer(200, {"resourceType": "Bundle", "entry": entries}, JSON)

    def _named(self, kind: str, token: str) -> list[Resource]:
        system, _, value = token.partition("|")
        return [
            one
            for one in self.of(kind)
            for name in one.get("identifier", [])
            if (name.get("system"), name["value"]) == (system, value.replace("\\", ""))
        ]

    def _create(self, kind: str, request: http.Request) -> http.Answer:
        resource = json.loads(request.body)
        problem = problems(resource)
        if problem:
            return http.Answer(422, {"resourceType": "OperationOutcome", "why": problem}, JSON)
        query = request.headers.get("If-None-Exist", "")
        if query and self._named(kind, query.partition("=")[2]):
            return http.Answer(200, b"", JSON)
        return http.Answer(201, self.add(resource), JSON)

    def _change(self, key: tuple[str, ...], request: http.Request) -> http.Answer:
        self.before_write()
        held = self.resources.get((key[0], key[1]))
        if held is None:
            return http.Answer(404, {}, JSON)
        version = held["meta"]["versionId"]
        if request.headers.get("If-Match") != f'W/"{version}"':
            return http.Answer(412, {}, JSON)
        said = json.loads(request.body)
        made = _patched(held, said) if request.method == "PATCH" else said
        problem = problems(made)
        if problem:
            return http.Answer(422, {"resourceType": "OperationOutcome", "why": problem}, JSON)
        made["meta"] = {"versionId": str(int(version) + 1)}
        self.resources[key[0], key[1]] = made
        return http.Answer(200, made, JSON)


def problems(resource: Resource) -> list[str]:
    """What R4 does not allow about a resource."""
    kind = resource.get("resourceType", "")
    found = [f"{kind} lacks {name}" for name in REQUIRED.get(kind, {"?"}) - resource.keys()]
    for (of, name), codes in CODES.items():
        if of == kind and name in resource and resource[name] not in codes:
            found.append(f"{kind}.{name} is {resource[name]}")
    found += [f"empty value in {kind}"] * _has_empty(resource)
    return found


def _has_empty(value: Any) -> bool:
    if isinstance(value, dict):
        return not value or any(map(_has_empty, value.values()))
    if isinstance(value, list):
        return not value or any(map(_has_empty, value))
    return value is None or value == ""


def _patched(resource: Resource, change: list[Resource]) -> Resource:
    made = dict(resource)
    for step in change:
        name = step["path"].strip("/")
        assert step["op"] in {"test", "replace", "add"}
        if step["op"] == "test":
            assert made[name] == step["value"]
        else:
            made[name] = step["value"]
    return made
