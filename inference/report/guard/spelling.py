"""Words as the guard compares them: lower case, American spelling, singular."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+(?:['\u2019][^\W_]+)?|\n|[^\w\s]|_")
_AMERICAN = (
    ("haem", "hem"),
    ("oedem", "edem"),
    ("tumour", "tumor"),
    ("ischaem", "ischem"),
    ("paediat", "pediat"),
    ("grey", "gray"),
    ("favour", "favor"),
    ("calibre", "caliber"),
    ("centre", "center"),
    ("metre", "meter"),
    ("litre", "liter"),
    ("visualis", "visualiz"),
    ("recognis", "recogniz"),
    ("localis", "localiz"),
    ("generalis", "generaliz"),
)


@dataclass(frozen=True)
class Token:
    """A word, number or mark of a text, with its place there."""

    stem: str
    text: str
    start: int
    end: int


def normal(text: str) -> str:
    """The text in the form that tokens are cut from."""
    return unicodedata.normalize("NFKC", text)


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a `normal` text."""
    for match in _TOKEN.finditer(text):
        yield Token(stem(match.group()), match.group(), match.start(), match.end())


def stems(text: str) -> tuple[str, ...]:
    """Stems of the words of a phrase; hyphens and marks are no words."""
    return tuple(t.stem for t in tokens(normal(text)) if t.stem[0].isalnum())


def stem(word: str) -> str:
    """Form in which two words are compared; no linguist would call it a stem."""
    found = word.casefold().replace("\u2019", "'")
    for british, american in _AMERICAN:
        found = found.replace(british, american)
    if len(found) <= 3 or not found.endswith("s") or found.endswith(("ss", "us", "is", "'s")):
        return found
    if found.endswith("sses"):
        return found[:-2]
    return f"{found[:-3]}y" if found.endswith("ies") else found[:-1]
