"""From a sentence to segments: one claim each, said or denied, with the words that qualify it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from inference.report.guard.polarity import polarized
from inference.report.guard.segments import ASIDE, COLON, COMMA, DENIALS, SIDES, Item, Segment
from inference.report.guard.spelling import Token, normal, tokens
from inference.report.guard.vocabulary import ARTICLES, Kind, Meaning, Phrase, Vocabulary

_AGE = re.compile(
    r"\b(\d{1,3})(?:[\s-]*(?:years?|yrs?)[\s-]*(?:old|of age)|[\s-]*(?:yo|y/o)\b)", re.IGNORECASE
)
_HYPHENS = frozenset("-\u2010\u2011/")
_MARKS = {
    ",": Meaning(Kind.JOIN, COMMA),
    ":": Meaning(Kind.JOIN, COLON),
    "(": Meaning(Kind.JOIN, ASIDE),
    "/": Meaning(Kind.JOIN, "or"),
    "&": Meaning(Kind.JOIN, "and"),
    "+": Meaning(Kind.JOIN, "and"),
    ";": Meaning(Kind.BREAK),
    ".": Meaning(Kind.BREAK),
    "!": Meaning(Kind.BREAK),
    "\n": Meaning(Kind.BREAK),
    "\u2013": Meaning(Kind.BREAK),
    "\u2014": Meaning(Kind.BREAK),
    "?": Meaning(Kind.DOUBT),
}
_CONNECTORS = frozenset({Kind.JOIN, Kind.ACCOMPANY})
_PAUSES = frozenset({COMMA, COLON, ASIDE})


def segments(text: str, vocabulary: Vocabulary) -> tuple[Segment, ...]:
    """Every segment of a text, in order, with its polarity."""
    found: list[Segment] = []
    for clause in _clauses(items(text, vocabulary)):
        found += polarized(_merged(_cut(clause)))
    return tuple(found)


def items(text: str, vocabulary: Vocabulary) -> tuple[Item, ...]:
    """The phrases of a text, the longest that the vocabulary knows at each place."""
    whole = normal(text)
    ages = {match.start(): match for match in _AGE.finditer(whole)}
    words = list(tokens(whole))
    found: list[Item] = []
    at = 0
    while at < len(words):
        age = ages.get(words[at].start)
        if age is not None:
            found.append(Item(Kind.AGE, age.group(1), age.group(), *age.span(), at == 0))
            at += sum(1 for word in words[at:] if word.start < age.end())
            continue
        meaning, length = _match(words, at, vocabulary)
        if meaning is not None:
            start, end = words[at].start, words[at + length - 1].end
            found.append(Item(meaning.kind, meaning.value, whole[start:end], start, end, at == 0))
        at += length
    return tuple(found)


def _match(words: Sequence[Token], at: int, vocabulary: Vocabulary) -> tuple[Meaning | None, int]:
    """What begins here and how many tokens it takes; None for what means nothing."""
    word = words[at]
    for phrase in vocabulary.phrases.get(word.stem, ()):
        length = _length(words, at, phrase)
        if length:
            stems, meaning = phrase
            joined = meaning.kind in _CONNECTORS and not meaning.value
            return (Meaning(meaning.kind, stems[0]) if joined else meaning), length
    if word.stem in ARTICLES:
        return None, 1
    if not word.stem[0].isalnum():
        return _MARKS.get(word.stem), 1
    numeric = any(letter.isdigit() for letter in word.stem)
    return Meaning(Kind.NUMBER if numeric else Kind.UNKNOWN), 1


def _length(words: Sequence[Token], at: int, phrase: Phrase) -> int:
    """Tokens that a phrase covers from here on, articles and hyphens included; 0 = another."""
    end = at
    for wanted in phrase[0]:
        while end < len(words) and words[end].stem != wanted:
            skip = words[end].stem in ARTICLES or words[end].stem in _HYPHENS
            if not skip or end == at:
                return 0
            end += 1
        if end == len(words):
            return 0
        end += 1
    return end - at


def _clauses(found: Sequence[Item]) -> Iterator[list[Item]]:
    clause: list[Item] = []
    for item in found:
        if item.kind is Kind.BREAK:
            yield clause
            clause = []
        else:
            clause.append(item)
    yield clause


def _cut(clause: Sequence[Item]) -> list[Segment]:
    """Pieces between connectors; a denial or "there is" behind a claim begins another piece."""
    pieces: list[Segment] = []
    now: list[Item] = []
    connector = ""
    history = False
    for item in clause:
        history = history or item.kind is Kind.HISTORY
        fresh = item.kind in (Kind.DENIES_NEXT, Kind.OPEN) and Segment(tuple(now), "").claims
        if not history and (item.kind in _CONNECTORS or fresh):
            pieces.append(Segment(tuple(now), connector))
            connector = item.value if item.kind in _CONNECTORS else ""
            now = [] if item.kind in _CONNECTORS else [item]
            if item.kind is Kind.ACCOMPANY:
                connector = "with"
        else:
            now.append(item)
    pieces.append(Segment(tuple(now), connector))
    return [piece for piece in pieces if piece.items]


def _merged(pieces: Sequence[Segment]) -> list[Segment]:
    """Pieces that claim nothing qualify the claim before them, or else the one behind.

    Something without a name is named by what follows: "a focus, likely an infarct". A side between
    two claims may belong to either, so it holds for both. A denial of nothing ("No, ...") stays
    by itself: it must not reach what comes after it.
    """
    found: list[Segment] = []
    waiting: list[Item] = []
    for n, piece in enumerate(pieces):
        named_later = piece.vague and _named_by(pieces[n + 1 : n + 2])
        if named_later or (not piece.claims and not found):
            waiting += piece.items
        elif not piece.claims:
            found[-1] = Segment((*found[-1].items, *piece.items), found[-1].connector)
            waiting += () if piece.of(Kind.UNKNOWN) else piece.of(*SIDES)
        else:
            connector = piece.connector if found else ""
            if piece.connector in _PAUSES and any(item.kind in DENIALS for item in waiting):
                found.append(Segment(tuple(waiting), connector))
                waiting = []
            found.append(Segment((*waiting, *piece.items), connector))
            waiting = []
    return found or ([Segment(tuple(waiting), "")] if waiting else [])


def _named_by(following: Sequence[Segment]) -> bool:
    return any(
        piece.of(Kind.CONCEPT) and (piece.connector == COLON or piece.items[0].kind is Kind.DOUBT)
        for piece in following
    )
