"""The pieces of a sentence: a claim each, with the words that qualify it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from inference.report.guard.vocabulary import Kind

COMMA, COLON, ASIDE = "comma", "colon", "aside"
CLAIMS = frozenset({Kind.CONCEPT, Kind.SWEEPING, Kind.HISTORY, Kind.AGE, Kind.MALE, Kind.FEMALE})
CLAIMED = CLAIMS | {Kind.WELL, Kind.VAGUE}
DENIALS = frozenset({Kind.DENIES_NEXT, Kind.DENIES_LAST, Kind.DENIES_EITHER})
SIDES = (Kind.LEFT, Kind.RIGHT, Kind.BILATERAL)


class Polarity(enum.Enum):
    """Whether a segment's claim is made or denied."""

    SAYS = "says"
    DENIES = "denies"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Item:
    """A phrase of the sentence and what it means.

    Attributes:
        start, end: its place in the `normal` text.
        first: stands at the beginning of the sentence, where any word is capitalized.
    """

    kind: Kind
    value: str
    text: str
    start: int
    end: int
    first: bool


@dataclass(frozen=True)
class Segment:
    """Words around one claim.

    Attributes:
        connector: what stands before it: "comma", "colon", "aside", "and", "or", "nor",
            "with", or empty.
    """

    items: tuple[Item, ...]
    connector: str
    polarity: Polarity = Polarity.SAYS

    def within(self, text: str) -> str:
        """As it stands in the `normal` text."""
        return text[min(i.start for i in self.items) : max(i.end for i in self.items)]

    def of(self, *kinds: Kind) -> tuple[Item, ...]:
        """Items of these kinds, in order."""
        return tuple(item for item in self.items if item.kind in kinds)

    @property
    def claims(self) -> bool:
        """Whether it says anything, or only qualifies what stands beside it."""
        return self.well or bool(self.of(*CLAIMS, Kind.VAGUE))

    @property
    def well(self) -> bool:
        """Whether it says of a structure that all is well with it."""
        return bool(self.of(Kind.WELL)) and bool(self.of(Kind.STRUCTURE))

    @property
    def vague(self) -> bool:
        """Whether what it claims has no name: "a lesion"."""
        return bool(self.of(Kind.VAGUE)) and not self.of(*CLAIMS, Kind.WELL)
