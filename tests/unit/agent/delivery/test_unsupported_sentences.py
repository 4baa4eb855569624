"""What the guard found unsupported, in every channel that carries drafts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from factories import hl7 as make

from agent.delivery.announcements import Announcement, Kind
from agent.delivery.channels import fhir_resources, hl7_messages, webhook
from agent.settings_hl7 import Hl7Sending
from agent.settings_messages import FhirSending, WebhookSending

CHANNELS: dict[str, Callable[[Announcement], str]] = {
    "hl7": lambda told: hl7_messages.text(told, Hl7Sending()),
    "webhook": lambda told: webhook.body(told, WebhookSending()).decode(),
    "fhir": lambda told: str(fhir_resources.report(told, FhirSending())),
}
DRAFT = make.draft("Left bleed.", unsupported="Tumor.")


@pytest.mark.parametrize("channel", CHANNELS)
def test_unsupported_sentences_stay_in_the_house(channel: str) -> None:
    """And the destination learns that there were some."""
    text = CHANNELS[channel](make.announcement(Kind.REPORT, draft=DRAFT))

    assert "Left bleed." in text
    assert "Tumor." not in text
    assert "left out" in text.replace("_", " ")


@pytest.mark.parametrize("channel", CHANNELS)
def test_site_that_asks_for_them_gets_them_marked_with_the_reason(channel: str) -> None:
    """The mark is part of the text, whatever a receiver does with it."""
    text = CHANNELS[channel](make.announcement(Kind.REPORT, draft=DRAFT, unsupported=True))

    assert "[UNSUPPORTED: no finding] Tumor." in text
    assert "were left out" not in text
