"""From the configuration to whoever says how soon a drafted study should be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from agent.drafting import backends
from agent.results import sentences
from agent.settings import TriageSettings
from inference.report.draft import ClinicalContext, Draft, Triage

#: Asks for an opinion on (draft, context, identifiers to be taken out of the text).
Triager = Callable[[Draft, ClinicalContext, Sequence[str]], Triage]


def triager(settings: TriageSettings) -> Triager | None:
    """The configured reasoning model; None = nobody is asked.

    Raises:
        ConfigError: the key cannot be read.
        DraftError: the endpoint is outside the house, and that was not permitted.
    """
    if not settings.enabled:
        return None
    from inference.report import house, triage

    reasoner = triage.HttpReasoner(
        triage.ReasonerSettings(
            endpoint=settings.endpoint,
            model=settings.model,
            house=house.House(
                settings.allowed_networks, settings.off_site_host, settings.data_may_leave
            ),
            api_key=backends.read_key(settings.api_key_file),
            timeout_s=settings.timeout_s,
            max_tokens=settings.max_tokens,
            max_attempts=settings.max_attempts,
        )
    )

    def ask(draft: Draft, context: ClinicalContext, identifiers: Sequence[str]) -> Triage:
        told = sentences.told(draft, unsupported=False)
        text = triage.describe(dataclasses.replace(draft, sentences=told), context, identifiers)
        return triage.interpret(text, reasoner)

    return ask
