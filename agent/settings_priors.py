"""The `[priors]` section: earlier studies that only the archive holds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat

from agent.section import Section


class PriorSettings(Section):
    """Where an earlier study is fetched from, for the change in scores (Prima packs)."""

    source: Annotated[str, Field(alias="from")] = ""
    """Name of a dicom (C-FIND, C-GET) or dicomweb destination; empty = nothing is fetched."""
    timeout_s: PositiveFloat = 120.0
    """For finding, fetching and analysing it together; result objects wait so long at most."""
