"""The `[dicomweb]` section: images and results over HTTP, for viewers and for senders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from agent.section import Section

Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+$")]


class DicomWebSettings(Section):
    """Our DICOMweb server: STOW-RS, QIDO-RS and WADO-RS below ``/dicom-web``."""

    enabled: bool = False
    """Off unless asked for: it serves whole studies to whoever may see the page."""
    store: bool = True
    """Take instances by STOW-RS, as by C-STORE."""
    order: Literal["received", "reading"] = "received"
    """Studies found come the newest first, or the most urgent first (for a viewer's list)."""
    mark_descriptions: bool = False
    """Put the priority before Study Description, for viewers that show no other column."""
    cors_origins: tuple[Origin, ...] = ()
    """Web pages of other origins (a viewer's) that may ask; empty = none."""
    max_results: PositiveInt = 5000
    """Matches that one answer holds at most; a client asks for more with offset."""
    max_request_mb: PositiveInt = 8192
    max_instance_mb: PositiveInt = 2048
    max_uploads: PositiveInt = 8
    """STOW requests at a time; more are told to come again."""
    idle_timeout_s: PositiveFloat = 60.0
    """A sender that is silent for so long (or sends less than 8 KB/s) is cut off."""
