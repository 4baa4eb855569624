"""A signed POST to whatever the site runs; who signs and how is in docs/integrate/webhook.md."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.delivery.announcements import Announcement, Kind, Opinion
from agent.delivery.channels import http_peer
from agent.results import sentences
from agent.settings import Destination
from agent.settings_messages import WebhookSending
from dicom_nodes.errors import NodeConfigError, NodeError
from dicom_nodes.web import http
from inference.report.draft import Draft

TIMESTAMP, SIGNATURE = "X-Worklist-Agent-Timestamp", "X-Worklist-Agent-Signature"
IDEMPOTENCY_KEY = "Idempotency-Key"
SCHEMA = 1


@dataclass(frozen=True)
class WebhookChannel:
    """Speaks to one ``kind = "webhook"`` destination."""

    destination: Destination
    seconds: Callable[[], float] = time.time

    def announce(self, announcement: Announcement) -> None:
        """POST; any 2xx is taken. A repeat has the same key and the same body."""
        peer = http_peer.of(self.destination)
        content = body(announcement, self.destination.webhook)
        at = str(int(self.seconds()))
        headers = {
            "Content-Type": "application/json",
            IDEMPOTENCY_KEY: announcement.control_id,
            TIMESTAMP: at,
            SIGNATURE: sign(self._secret(), at, content),
        }
        with http.connect(peer, headers) as client:
            http.check(peer, client.post(self.destination.url, content=content))

    def preview(self, announcement: Announcement) -> str:
        """The body, indented; the signature depends on the time."""
        said = json.loads(body(announcement, self.destination.webhook))
        return f"POST {self.destination.url}\n" + json.dumps(said, indent=2, ensure_ascii=False)

    def check(self) -> None:
        """HEAD: whoever answers at all is there; the secret can be read."""
        self._secret()
        peer = http_peer.of(self.destination)
        with http.connect(peer) as client:
            error: NodeError | None = http.of_status(
                peer, client.head(self.destination.url).status_code
            )
        if error is not None and not error.permanent:
            raise error

    def _secret(self) -> str:
        path = self.destination.webhook.secret_file
        if path is None:
            raise NodeConfigError(
                f"{self.destination.name}: webhook.secret_file is missing; set it"
            )
        return http.secret(self.destination.name, path)


def sign(secret: str, timestamp: str, content: bytes) -> str:
    """``v1=`` and the hexadecimal HMAC-SHA256 of timestamp, full stop and body."""
    signed = timestamp.encode() + b"." + content
    return "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def body(told: Announcement, settings: WebhookSending) -> bytes:
    """The JSON document: no field depends on the moment of sending or the attempt."""
    said: dict[str, Any] = {
        "schema": SCHEMA,
        "event": told.kind.value,
        "id": told.control_id,
        "at": told.enqueued_at.isoformat(),
        "study": {
            "key": told.study_key,
            "revision": told.revision,
            "modalities": list(told.study.modalities),
            "procedure": told.study.procedure,
            "location": told.study.location,
            **_identifiers(told, settings),
        },
        "priority": {
            "level": told.priority.level.value,
            "score": told.priority.score,
            "reason": told.priority.reason,
            "ordered": told.priority.ordered,
        },
        "caution": told.caution,
    }
    if told.kind is Kind.REPORT and settings.findings:
        said["models"] = [_opinion(one) for one in told.opinions]
        said["draft"] = _draft(told.draft, unsupported=told.unsupported) if told.draft else None
    return json.dumps(said, ensure_ascii=False, sort_keys=True).encode()


def _identifiers(told: Announcement, settings: WebhookSending) -> dict[str, Any]:
    """Only what the site asked for."""
    study, who = told.study, told.study.identity
    known: dict[str, dict[str, str]] = {
        "study_uid": {"study_uid": who.study_uid},
        "accession_number": {"accession_number": who.accession_number},
        "patient_id": {
            "patient_id": who.patient_id,
            "issuer_of_patient_id": who.issuer_of_patient_id,
        },
        "patient_name": {"patient_name": study.patient_name},
        "birth_date": {"birth_date": study.birth_date},
        "order_numbers": {
            "placer_order": study.placer_order,
            "filler_order": study.filler_order,
            "procedure_id": study.procedure_id,
        },
    }
    return {name: v for key in settings.identifiers for name, v in known[key].items()}


def _opinion(opinion: Opinion) -> dict[str, Any]:
    return {
        "model": opinion.model,
        "version": opinion.version,
        "notice": opinion.notice,
        "status": opinion.status.value,
        "reason": opinion.reason,
        "findings": [
            {
                "label": f.label,
                "display": f.display,
                "probability": round(f.probability, 4),
                "acuity": f.acuity.value,
                "code": {"value": f.code.value, "scheme": f.code.scheme},
            }
            for f in opinion.findings
        ],
        "looked_for": list(opinion.looked_for),
    }


def _draft(draft: Draft, *, unsupported: bool) -> dict[str, Any]:
    """What the guard found unsupported only where the site wants it."""
    kept = sentences.told(draft, unsupported=unsupported)
    return {
        "model": draft.model,
        "exam": draft.exam_type,
        "verified": False,
        "sentences": [sentences.marked(sentence) for sentence in kept],
        "left_out": len(draft.sentences) - len(kept),
    }
