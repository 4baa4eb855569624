"""Every drafted sentence is held against what the heads found, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inference.findings import Findings
from inference.report.draft import ClinicalContext, Draft

#: Gives every sentence of (draft, findings of every pack, context) its verdict.
Guard = Callable[[Draft, Sequence[Findings], ClinicalContext], Draft]


def guard() -> Guard:
    """The guard; its tables are read when it is first used."""
    from inference.report.guard import check

    return check


def unchecked(draft: Draft, _findings: Sequence[Findings], _context: ClinicalContext) -> Draft:
    """The draft as it was written."""
    return draft


def worded(findings: Sequence[Findings], context: ClinicalContext) -> Draft:
    """The template's draft with its verdicts."""
    from inference.report import template

    return guard()(template.compose(findings, context), findings, context)
