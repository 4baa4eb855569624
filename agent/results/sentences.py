"""Which drafted sentences leave the house; without the DICOM libraries, for every channel."""

from __future__ import annotations

from inference.report.draft import Draft, Sentence, Verdict


def told(draft: Draft, *, unsupported: bool) -> tuple[Sentence, ...]:
    """Nothing that the guard found unsupported, unless the site asked for it."""
    return tuple(s for s in draft.sentences if unsupported or s.verdict is not Verdict.UNSUPPORTED)


def marked(sentence: Sentence) -> str:
    """The text as it leaves the house: one that is unsupported never without saying so, and why."""
    if sentence.verdict is not Verdict.UNSUPPORTED:
        return sentence.text
    return f"[UNSUPPORTED: {sentence.reason}] {sentence.text}"
