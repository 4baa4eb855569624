"""A FHIR R4 server: Task and order priority when the worklist moves, DiagnosticReport after it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

from agent.delivery.announcements import Announcement, Kind
from agent.delivery.channels import fhir_resources as resources
from agent.delivery.channels import http_peer
from agent.delivery.channels.fhir_resources import Resource
from agent.settings import Destination
from agent.settings_messages import FhirSending
from dicom_nodes.errors import NodeConfigError, PeerBusy, PeerRefused
from dicom_nodes.web import http
from dicom_nodes.web.http import HttpPeer

_FHIR = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}


@dataclass(frozen=True)
class FhirChannel:
    """Speaks to one ``kind = "fhir"`` destination."""

    destination: Destination

    def announce(self, announcement: Announcement) -> None:
        """Create or change the resource of the study; a repeat changes nothing."""
        settings = self.destination.fhir
        peer = http_peer.of(self.destination)
        with http.connect(peer, {**_FHIR, **_token(self.destination, peer)}) as client:
            server = _Server(peer, client, settings)
            if announcement.kind is Kind.REPORT:
                made = resources.report(announcement, settings)
                server.put(made, resources.OPEN_REPORTS)
                return
            server.put(resources.task(announcement, settings), resources.OPEN_TASKS)
            if settings.service_request:
                server.raise_order(announcement)

    def preview(self, announcement: Announcement) -> str:
        """The resource, indented, and what would be done to the order."""
        settings = self.destination.fhir
        if announcement.kind is Kind.REPORT:
            return json.dumps(resources.report(announcement, settings), indent=2)
        text = json.dumps(resources.task(announcement, settings), indent=2)
        if settings.service_request:
            priority = settings.priorities[announcement.priority.level]
            text += f"\nServiceRequest?{_search(announcement, settings)}: priority {priority}"
        return text

    def check(self) -> None:
        """The capability statement, with our credentials."""
        peer = http_peer.of(self.destination)
        with http.connect(peer, {**_FHIR, **_token(self.destination, peer)}) as client:
            http.check(peer, client.get("metadata"))


@dataclass(frozen=True)
class _Server:
    peer: HttpPeer
    client: httpx.Client
    settings: FhirSending

    def put(self, resource: Resource, ours: frozenset[str]) -> None:
        """Conditional create by identifier; what exists is changed while its status is `ours`."""
        kind, name = resource["resourceType"], resource["identifier"][0]
        token = f"{name['system']}|{name['value']}"
        answer = self.client.post(
            kind, content=_json(resource), headers={"If-None-Exist": f"identifier={token}"}
        )
        http.check(self.peer, answer)
        if answer.status_code == 201:
            return
        held = self._one(kind, {"identifier": token})
        if held is None:
            raise PeerBusy(f"{self.peer.name}: {kind} neither created nor found; will try again")
        same = {**held, **resource, "status": held.get("status")} == held
        if held.get("status") not in ours or same:
            return  # somebody works on it or has signed it: theirs
        status = resource["status"] if kind == "DiagnosticReport" else held["status"]
        self._write({**held, **resource, "status": status})

    def raise_order(self, told: Announcement) -> None:
        """ServiceRequest.priority, where it is lower than what we say; never lowered.

        Raises:
            PeerBusy: the order is not there (yet).
            PeerRefused: the search finds several.
        """
        key, _, value = _search(told, self.settings).partition("=")
        order = self._one("ServiceRequest", {key: value})
        if order is None:
            raise PeerBusy(f"{self.peer.name}: the order is not there yet; will try again")
        wanted = self.settings.priorities[told.priority.level]
        now = order.get("priority", "routine")
        if now in resources.URGENCY and resources.URGENCY.index(now) <= resources.URGENCY.index(
            wanted
        ):
            return
        if not self.settings.patch:
            self._write({**order, "priority": wanted})
            return
        there = "priority" in order
        change: list[Resource] = [{"op": "test", "path": "/priority", "value": now}] * there
        change.append({"op": "replace" if there else "add", "path": "/priority", "value": wanted})
        answer = self.client.patch(
            f"ServiceRequest/{order['id']}",
            content=_json(change),
            headers={"Content-Type": "application/json-patch+json", **_if_match(order)},
        )
        http.check(self.peer, answer)

    def _one(self, kind: str, keys: dict[str, str]) -> Resource | None:
        """Search by POST: identifiers stay out of URLs, which proxies and servers log."""
        answer = self.client.post(
            f"{kind}/_search",
            data=keys,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        http.check(self.peer, answer)
        found = [
            entry["resource"]
            for entry in _bundle(self.peer, answer).get("entry", [])
            if entry.get("resource", {}).get("resourceType") == kind
        ]
        if len(found) > 1:
            raise PeerRefused(
                f"{self.peer.name}: {len(found)} {kind} resources match; make the search narrower"
            )
        return found[0] if found else None

    def _write(self, resource: Resource) -> None:
        kind, ident = resource["resourceType"], resource["id"]
        answer = self.client.put(
            f"{kind}/{ident}", content=_json(resource), headers=_if_match(resource)
        )
        http.check(self.peer, answer)


def _search(told: Announcement, settings: FhirSending) -> str:
    who = told.study.identity
    return settings.service_request.format(
        accession=_escaped(who.accession_number), study_uid=_escaped(who.study_uid)
    )


def _escaped(value: str) -> str:
    """Characters with a meaning in a search parameter (R4 3.1.1.4.0.1)."""
    for character in "\\$,|":
        value = value.replace(character, f"\\{character}")
    return value


def _if_match(resource: Resource) -> dict[str, str]:
    """Not if somebody changed it meanwhile (412, which is tried again)."""
    version = resource.get("meta", {}).get("versionId")
    return {"If-Match": f'W/"{version}"'} if version else {}


def _bundle(peer: HttpPeer, answer: httpx.Response) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        said = None
    if not isinstance(said, dict) or said.get("resourceType") != "Bundle":
        raise PeerRefused(f"{peer.name}: the answer to a search is no Bundle; check the url")
    return said


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _token(destination: Destination, peer: HttpPeer) -> dict[str, str]:
    """An access token by client credentials, where the site uses OAuth2."""
    oauth = destination.fhir.oauth
    if not oauth.token_url or oauth.client_secret_file is None:
        return {}
    from authlib.integrations.base_client import OAuthError
    from authlib.integrations.httpx_client import OAuth2Client

    secret = http.secret(destination.name, oauth.client_secret_file)
    issuer = HttpPeer(oauth.token_url, ca=peer.ca, timeout_s=peer.timeout_s)
    with http.errors(issuer):
        client = OAuth2Client(
            oauth.client_id,
            secret,
            scope=oauth.scope,
            timeout=issuer.timeout_s,
            verify=http.verify(issuer),
            trust_env=False,
        )
        with client:
            try:
                token = client.fetch_token(oauth.token_url, grant_type="client_credentials")
            except OAuthError as error:
                raise NodeConfigError(
                    f"{issuer.name}: no access token ({error.error}); "
                    "check client_id, client_secret_file and scope"
                ) from None
    return {"Authorization": f"Bearer {token['access_token']}"}
