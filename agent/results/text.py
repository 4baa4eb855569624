"""Our own words in a result object: ASCII, so that any character set of the source holds them."""

from __future__ import annotations

import unicodedata

from inference.findings import LIME, Finding

RESEARCH = "RESEARCH USE ONLY"
STATEMENT = "AI generated; not reviewed by a physician; research use only"
"""At most 64 characters: it goes into CompletionFlagDescription (LO)."""
_REPLACED = {
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{LATIN SMALL LETTER SHARP S}": "ss",
}


def evidence(finding: Finding) -> str:
    """What the map of a located finding is."""
    located = finding.grounding
    return "LIME evidence" if located is not None and located.method == LIME else "attention"


def plain(text: str, limit: int = 1024) -> str:
    """Text without diacritics, control characters and backslashes, cut to the VR's length."""
    for char, instead in _REPLACED.items():
        text = text.replace(char, instead)
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = "".join(c if " " <= c <= "~" and c != "\\" else " " for c in ascii_text).split()
    return " ".join(words)[:limit].rstrip()


def description(what: str) -> str:
    """A description that says what the object is and ends with what it may be used for."""
    tail = f" - {RESEARCH}"
    return plain(what, 64 - len(tail)) + tail
