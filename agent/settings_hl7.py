"""The `[hl7]` and `[mwl]` sections, and `hl7` of a destination: fields and codes of the site."""

from __future__ import annotations

from agent.section import Section


class Hl7Sending(Section):
    """How a ``kind = "hl7"`` destination is told."""
