"""The place of the findings language model in the official interface; it is not built in yet."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from inference.errors import NotAvailableError


def load_vlm(
    model_name_or_path: str | os.PathLike[str],
    device: str | None = None,
    **options: Any,
) -> NoReturn:
    """Load the findings generator of a VLM directory.

    Raises:
        NotAvailableError: always, in this version.
    """
    raise NotAvailableError(
        "load_vlm: written findings (connector and language model) are not part of this version; "
        "load_encoder and load_diagnostic_head read the same studies"
    )


def interpret_findings(findings: str, *arguments: Any, **options: Any) -> NoReturn:
    """Ask an external reasoning model for a triage level of generated findings.

    Raises:
        NotAvailableError: always, in this version.
    """
    raise NotAvailableError(
        "interpret_findings: triage of written findings is not part of this version; the agent's "
        "priority policy ranks studies by the diagnostic head's findings"
    )
