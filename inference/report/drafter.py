"""What every writer of drafts has in common, whether it runs in this process or behind HTTP."""

from __future__ import annotations

from typing import Protocol

from inference.report.draft import ClinicalContext, Draft
from inference.report.tokens import VisualTokens


class Drafter(Protocol):
    """Writes a draft from what the encoder saw."""

    def draft(self, tokens: VisualTokens, context: ClinicalContext, priority_rank: int) -> Draft:
        """Draft the findings of one study.

        Args:
            tokens: of the study's series, projected for this drafter's language model.
            context: of the order and the headers; without identifiers.
            priority_rank: 0 is the most urgent; a server may let it overtake others.

        Raises:
            DraftError: no draft; `permanent` says whether asking again can help.
        """
        ...
