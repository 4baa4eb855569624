"""The `[[destinations]]` entries: where results go, and who is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, PositiveFloat, model_validator

from agent.section import Section
from agent.settings_base import AETitle, Port, TlsSettings
from agent.settings_hl7 import Hl7Sending
from agent.settings_messages import FhirSending, WebhookSending
from agent.settings_ups import UpsSending

ResultKind = Literal["sr", "seg", "pm", "sc"]
MessageKind = Literal["priority", "report"]

#: Kinds of destination that are told (messages), not sent objects.
MESSAGE_DESTINATIONS = frozenset({"hl7", "ups", "ups-rs", "webhook", "fhir"})


class Destination(Section):
    """Where results go."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    kind: Literal["dicom", "dicomweb", "hl7", "ups", "ups-rs", "webhook", "fhir"]
    send: tuple[ResultKind | MessageKind, ...] = ("sr", "seg", "pm", "sc")
    """Objects (dicom, dicomweb), or messages (``priority`` and ``report``, their default)."""
    shadow: bool = True
    """Record what would be sent, send nothing."""
    # of a dicom destination
    ae_title: AETitle | None = None
    host: str = "127.0.0.1"
    port: Port = 104
    tls: TlsSettings = TlsSettings()
    # of a dicomweb destination
    url: str = ""
    username: str = ""
    password_file: Path | None = None
    token_file: Path | None = None
    ca: Path | None = None
    timeout_s: PositiveFloat = 30.0
    check_identity: bool = True
    """Ask the destination which patient and accession it holds for the study before a push."""
    read_back: bool = True
    """Delivered only when the object was found there, under the same patient and accession."""
    read_back_timeout_s: PositiveFloat = 600.0
    """An object that cannot be found there for so long is sent again."""
    commitment: bool = False
    """Delivered only when the destination committed itself to keep it (dicom destinations)."""
    commitment_timeout_s: PositiveFloat = 600.0
    """Commitment that was not reported for so long is asked for again."""
    # of a destination that is told
    only_raised: bool = True
    """Tell a priority only when it is above what was ordered (or corrects what was told)."""
    hl7: Hl7Sending = Hl7Sending()
    ups: UpsSending = UpsSending()
    webhook: WebhookSending = WebhookSending()
    fhir: FhirSending = FhirSending()

    @model_validator(mode="before")
    @classmethod
    def _messages_by_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("kind") in MESSAGE_DESTINATIONS:
            return {"send": get_args(MessageKind), **data}
        return data

    @model_validator(mode="after")
    def _complete(self) -> Self:
        told = self.kind in MESSAGE_DESTINATIONS
        possible = get_args(MessageKind) if told else get_args(ResultKind)
        wrong = [kind for kind in self.send if kind not in possible]
        if wrong:
            raise ValueError(
                f"a {self.kind} destination cannot be sent {', '.join(wrong)}; "
                f"possible: {', '.join(possible)}"
            )
        if self.kind in {"dicom", "ups"} and not self.ae_title:
            raise ValueError(f"a {self.kind} destination needs ae_title, host and port")
        if self.kind in {"dicomweb", "ups-rs", "webhook", "fhir"} and not self.url:
            raise ValueError(f"a {self.kind} destination needs url")
        if self.kind == "webhook" and self.webhook.secret_file is None:
            raise ValueError("a webhook destination needs webhook.secret_file")
        if self.commitment and self.kind != "dicom":
            raise ValueError("storage commitment is asked of dicom destinations only")
        return self
