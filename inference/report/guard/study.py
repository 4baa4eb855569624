"""What a sentence says of the study and the patient, held against order and headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from inference.findings import Findings
from inference.report.draft import ClinicalContext
from inference.report.guard import parsing
from inference.report.guard.segments import Item, Segment
from inference.report.guard.spelling import stems
from inference.report.guard.vocabulary import ARTICLES, Kind, Vocabulary
from inference.report.scrub import scrub

_NEVER = {
    Kind.NUMBER: "a number ({}) that nobody determined",
    Kind.COMPARISON: "{!r} compares with images that nobody looked at",
    Kind.ADVICE: "{!r} is advice or an account, not a finding",
    Kind.DIRECTION: "no head tells a direction ({!r})",
}
ADULT_FROM = 18
_SEX = {Kind.MALE: "M", Kind.FEMALE: "F"}
_PERSON = frozenset({Kind.AGE, Kind.MALE, Kind.FEMALE, Kind.ADULT, Kind.CHILD})
_DOUBTFUL = frozenset({Kind.DENIES_NEXT, Kind.DENIES_LAST, Kind.DENIES_EITHER, Kind.DOUBT})
_FREE = frozenset({Kind.FILLER, Kind.JOIN, *_PERSON})
_QUOTES = frozenset(stems("indication information exam study for"))
"""Last words of phrases that announce the order's own words."""
_UNIT = re.compile(
    r"\d\s*-?(?:mm|cm|ml|cc|hu|millimet|centimet|millilit|hounsfield|cubic|%|percent|degree|\u00b0)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Study:
    """What is known of the study.

    Attributes:
        descriptions: of the series that were read, lower case.
    """

    context: ClinicalContext
    vocabulary: Vocabulary
    descriptions: tuple[str, ...]

    @staticmethod
    def of(context: ClinicalContext, findings: Sequence[Findings], vocabulary: Vocabulary) -> Study:
        """From the order and the headers, and what the analyses read."""
        read = [s.description for one in findings for s in one.series if s.used]
        named = tuple(dict.fromkeys(text.lower() for text in (*context.series, *read)))
        return Study(context, vocabulary, named)

    def refuses(self, text: str, items: Sequence[Item]) -> str:
        """Why a sentence cannot be about this study; empty when it can."""
        if scrub(text) != " ".join(text.split()) or any(i.kind is Kind.IDENTITY for i in items):
            return "holds what looks like a name, a date or an identifier"
        for item in items:
            if item.kind is Kind.UNKNOWN and item.text[:1].isupper() and not item.first:
                return f"{item.text!r} may be a name"
        if _UNIT.search(text) or any(item.kind is Kind.UNIT for item in items):
            return "a measurement, and nobody measured"
        for item in items:
            why = self._item(item)
            if why:
                return why
        return ""

    def _item(self, item: Item) -> str:
        if item.kind in _NEVER:
            return _NEVER[item.kind].format(item.text)
        if item.kind in (Kind.MODALITY, Kind.APPEARANCE):
            return self._modality(item)
        if item.kind is Kind.SERIES:
            return self._series(item)
        return self._contrast(item) if item.kind is Kind.CONTRAST else ""

    def _modality(self, item: Item) -> str:
        if item.value == self.context.modality:
            return ""
        return f"{item.text!r} does not belong to a study of modality {self._shown}"

    @property
    def _shown(self) -> str:
        return self.context.modality or "unknown"

    def _series(self, item: Item) -> str:
        series = self.vocabulary.series[item.value]
        if series.modality and series.modality != self.context.modality:
            return f"{item.text!r} does not belong to a study of modality {self._shown}"
        if any(word in text for text in self.descriptions for word in series.holds):
            return ""
        return f"no {series.name} series was read ({item.text!r})"

    def _contrast(self, item: Item) -> str:
        given = self.context.contrast
        if given is None:
            return f"whether a contrast agent was given is unknown ({item.text!r})"
        if given and item.value == "not_given":
            return f"a contrast agent was given ({item.text!r})"
        if not given and item.value == "given":
            return f"no contrast agent was given ({item.text!r})"
        return ""

    def person(self, segment: Segment) -> str:
        """Why a segment's words on the patient are not the order's; empty when they are."""
        for item in segment.of(Kind.AGE):
            age = self.context.age_years
            if age is None or int(age) != int(item.value):
                return f"the age is not that of the patient ({item.text})"
        for item in segment.of(Kind.MALE, Kind.FEMALE):
            if self.context.sex != _SEX[item.kind]:
                return f"the sex is not that of the patient ({item.text})"
        for item in segment.of(Kind.ADULT, Kind.CHILD):
            age = self.context.age_years
            if age is None or (age >= ADULT_FROM) is not (item.kind is Kind.ADULT):
                return f"the age is not that of the patient ({item.text})"
        return ""

    def presented(self, segment: Segment) -> str:
        """Why words beside age and sex ("man with headache") are not the order's."""
        for item in segment.items:
            if item.kind not in _FREE and not self.ordered(item):
                return f"the order does not say {item.text!r}"
        return ""

    def told(self, segment: Segment) -> str:
        """Why a segment on history or complaints is not in the order; empty when it is.

        Its words must stand in the order together and in their order. An order that denies or asks
        says nothing of the past: "no history of stroke", "stroke?".
        """
        announced, *_ = segment.of(Kind.HISTORY)
        rest = (i for i in segment.items if i is not announced and i.kind not in _PERSON)
        said = _words(" ".join(item.text for item in rest))
        quoted = stems(announced.text)[-1] in _QUOTES
        ordered = _words(self.context.indication)
        size = len(said)
        if not said or not any(
            ordered[n : n + size] == said for n in range(len(ordered) - size + 1)
        ):
            return "the order does not say so"
        return (
            "" if quoted or not self._doubtful else "the order denies or asks; it does not say so"
        )

    def ordered(self, item: Item) -> bool:
        """Whether the indication says every word of an item, and neither denies nor asks."""
        words = frozenset(_words(self.context.indication))
        return not self._doubtful and words.issuperset(_words(item.text))

    @property
    def _doubtful(self) -> bool:
        found = parsing.items(self.context.indication, self.vocabulary)
        return any(item.kind in _DOUBTFUL for item in found) or "?" in self.context.indication


def _words(text: str) -> tuple[str, ...]:
    return tuple(stem for stem in stems(text) if stem not in ARTICLES)
