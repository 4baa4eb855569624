"""Which claims of a clause are made, which are denied, and where that cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.report.guard.segments import ASIDE, CLAIMED, COMMA, DENIALS, Polarity, Segment
from inference.report.guard.vocabulary import Kind


@dataclass(frozen=True)
class _Denial:
    """How often a segment denies, and whether from behind."""

    count: int
    behind: bool


def _denial(segment: Segment) -> _Denial:
    claims = [n for n, i in enumerate(segment.items) if i.kind in CLAIMED]
    denials = [n for n, item in enumerate(segment.items) if item.kind in DENIALS]
    last = denials[-1] if denials else -1
    return _Denial(len(denials), bool(denials) and not any(n > last for n in claims))


def polarized(pieces: Sequence[Segment]) -> list[Segment]:
    """Give every segment its polarity: its own denial, or that of the list it stands in."""
    denials = [_denial(piece) for piece in pieces]
    found: list[Polarity] = []
    for n, denial in enumerate(denials):
        if denial.count:
            found.append(Polarity.DENIES if denial.count == 1 else Polarity.UNCLEAR)
        elif n and found[-1] is not Polarity.SAYS:
            found.append(_inherited(n, pieces, denials))
        else:
            found.append(Polarity.SAYS)
    for n, denial in enumerate(denials):
        if denial.count and denial.behind:
            _backwards(n, pieces, denials, found)
    return [
        Segment(piece.items, piece.connector, polarity)
        for piece, polarity in zip(pieces, found, strict=True)
    ]


def _inherited(n: int, pieces: Sequence[Segment], denials: Sequence[_Denial]) -> Polarity:
    """Whether a denial before a list reaches this member of it."""
    piece = pieces[n]
    if piece.of(Kind.OPEN) or piece.well:
        return Polarity.SAYS
    if piece.connector == "nor":
        return Polarity.DENIES
    affirmed = bool(piece.of(Kind.AFFIRM))
    source = max(m for m in range(n) if denials[m].count)
    if denials[source].behind and not pieces[source].of(Kind.DENIES_NEXT):
        return Polarity.SAYS if affirmed else Polarity.UNCLEAR
    shared = {
        "or": True,
        "and": not affirmed,
        ASIDE: not affirmed,
        COMMA: not affirmed and _list_goes_on(n, pieces, denials),
    }
    return Polarity.DENIES if shared.get(piece.connector) else Polarity.UNCLEAR


def _list_goes_on(n: int, pieces: Sequence[Segment], denials: Sequence[_Denial]) -> bool:
    """Whether a list with commas ends with "or", "nor" or "and": then it is one list."""
    for m in range(n + 1, len(pieces)):
        if denials[m].count or pieces[m].of(Kind.OPEN):
            return False
        if pieces[m].connector in ("or", "nor", "and"):
            return True
        if pieces[m].connector != COMMA:
            return False
    return False


def _backwards(
    n: int, pieces: Sequence[Segment], denials: Sequence[_Denial], found: list[Polarity]
) -> None:
    """Deny the members of a list in front of "... are not seen"."""
    for m in range(n - 1, -1, -1):
        connector = pieces[m + 1].connector
        said = pieces[m].of(Kind.AFFIRM, Kind.OPEN) or pieces[m].well
        if denials[m].count or said or not connector:
            return
        if connector in (COMMA, "and", "or"):
            found[m] = Polarity.DENIES
        else:
            found[m] = Polarity.UNCLEAR
            return
