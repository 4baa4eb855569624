"""The words the guard knows, read from its two tables: concepts.toml and words.toml."""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

from inference.findings import Findings
from inference.report.guard.spelling import stems

ARTICLES = frozenset(stems("the a an of in is are was were be been within this any has have"))
"""May stand between the words of a phrase; alone they mean nothing."""


class Kind(enum.Enum):
    """What a phrase does in a sentence."""

    CONCEPT = "concept"
    STRUCTURE = "structure"
    SERIES = "series"
    MODALITY = "modality"
    APPEARANCE = "appearance"
    CONTRAST = "contrast"
    UNIT = "units"
    IDENTITY = "identity"
    COMPARISON = "comparisons"
    ADVICE = "advice"
    HISTORY = "history"
    MALE = "male"
    FEMALE = "female"
    ADULT = "adult"
    CHILD = "child"
    DIRECTION = "direction"
    LEFT = "left"
    RIGHT = "right"
    BILATERAL = "bilateral"
    ACUTE = "acute"
    CHRONIC = "chronic"
    DOUBT = "doubts"
    DENIES_NEXT = "denies_next"
    DENIES_LAST = "denies_last"
    DENIES_EITHER = "denies_either"
    WELL = "wells"
    SWEEPING = "sweeping"
    JOIN = "joins"
    ACCOMPANY = "accompanies"
    BREAK = "breaks"
    OPEN = "opens"
    AFFIRM = "affirms"
    GRADE = "grades"
    COUNT = "counts"
    PLACE = "places"
    OUTSIDE = "outside"
    VAGUE = "vague"
    FILLER = "fillers"
    # not of the table
    AGE = "age"
    NUMBER = "number"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Meaning:
    """What a phrase says."""

    kind: Kind
    value: str = ""


@dataclass(frozen=True)
class Concept:
    """Something a head may see; the fields are explained in concepts.toml."""

    name: str
    words: tuple[str, ...]
    labels: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    time: str = ""
    sided: bool = True


@dataclass(frozen=True)
class Series:
    """A kind of series that a sentence may name, and what the descriptions of such hold."""

    name: str
    modality: str
    holds: tuple[str, ...]


@dataclass(frozen=True)
class Structure:
    """Part of the head that is well when all of `needs` (and `also`, if seen) are absent."""

    needs: tuple[str, ...]
    also: tuple[str, ...] = ()
    outside: bool = False


Phrase = tuple[tuple[str, ...], Meaning]


@dataclass(frozen=True)
class Vocabulary:
    """Everything the guard can understand.

    Attributes:
        phrases: by first stem, longest first; of equals the first one counts.
        of_label: concept of a label id.
        children: of a concept, one step down.
    """

    concepts: Mapping[str, Concept]
    series: Mapping[str, Series]
    structures: Mapping[str, Structure]
    phrases: Mapping[str, Sequence[Phrase]]
    of_label: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def below(self, name: str) -> tuple[str, ...]:
        """A concept and everything narrower, itself first."""
        return _reach(name, self.children)

    def above(self, name: str) -> tuple[str, ...]:
        """Everything broader than a concept."""
        return _reach(name, {c.name: c.parents for c in self.concepts.values()})[1:]

    def knowing(self, findings: Sequence[Findings]) -> Vocabulary:
        """This vocabulary and the labels of packs it has never heard of, by their display names."""
        news = {
            f.label: f.display
            for one in findings
            for f in one.findings
            if f.label not in self.of_label
        }
        if not news:
            return self
        added = [
            Concept(f"label {label}", (display, label.replace("_", " ")), (label,))
            for label, display in sorted(news.items())
        ]
        known = _concept_phrases(added)
        both = _index([*(p for found in self.phrases.values() for p in found), *known])
        return replace(
            self,
            concepts={**self.concepts, **{c.name: c for c in added}},
            of_label={**self.of_label, **{c.labels[0]: c.name for c in added}},
            phrases=both,
        )


@cache
def vocabulary() -> Vocabulary:
    """The vocabulary of this package."""
    words = _table("words.toml")
    concepts = [_concept(name, entry) for name, entry in _table("concepts.toml").items()]
    children: dict[str, list[str]] = {}
    for concept in concepts:
        for parent in concept.parents:
            children.setdefault(parent, []).append(concept.name)
    structures = words["structures"]
    return Vocabulary(
        concepts={concept.name: concept for concept in concepts},
        series={e["name"]: Series(e["name"], e["modality"], tuple(e["holds"])) for e in _of(words)},
        structures={
            e["words"][0]: Structure(
                tuple(e["needs"]), tuple(e.get("also", ())), e.get("outside", False)
            )
            for e in structures
        },
        phrases=_index([*_concept_phrases(concepts), *_word_phrases(words)]),
        of_label={label: concept.name for concept in concepts for label in concept.labels},
        children=children,
    )


def _of(words: Mapping[str, Any]) -> list[dict[str, Any]]:
    series: list[dict[str, Any]] = words["series"]
    return series


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _concept(name: str, entry: Mapping[str, Any]) -> Concept:
    return Concept(
        name=name,
        words=tuple(entry["words"]),
        labels=tuple(entry.get("labels", ())),
        parents=tuple(entry.get("parents", ())),
        parts=tuple(entry.get("parts", ())),
        time=entry.get("time", ""),
        sided=entry.get("sided", True),
    )


def _concept_phrases(concepts: Iterable[Concept]) -> Iterator[Phrase]:
    for concept in concepts:
        for words in concept.words:
            yield _phrase(words, Meaning(Kind.CONCEPT, concept.name))


def _word_phrases(words: Mapping[str, Any]) -> Iterator[Phrase]:
    for entry in words["series"]:
        for text in entry["words"]:
            yield _phrase(text, Meaning(Kind.SERIES, entry["name"]))
    for kind in (Kind.MODALITY, Kind.APPEARANCE, Kind.CONTRAST):
        for value, texts in words[kind.value].items():
            for text in texts:
                yield _phrase(text, Meaning(kind, value))
    for entry in words["structures"]:
        for text in entry["words"]:
            yield _phrase(text, Meaning(Kind.STRUCTURE, entry["words"][0]))
    for kind in Kind:
        if isinstance(words.get(kind.value), list) and kind is not Kind.SERIES:
            for text in words[kind.value]:
                yield _phrase(text, Meaning(kind))


def _phrase(text: str, meaning: Meaning) -> Phrase:
    return tuple(stem for stem in stems(text) if stem not in ARTICLES), meaning


def _index(phrases: Iterable[Phrase]) -> dict[str, list[Phrase]]:
    found: dict[str, list[Phrase]] = {}
    for phrase in phrases:
        if phrase[0]:
            found.setdefault(phrase[0][0], []).append(phrase)
    return {first: sorted(these, key=lambda p: -len(p[0])) for first, these in found.items()}


def _reach(name: str, steps: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    found = [name]
    for one in found:
        found.extend(step for step in steps.get(one, ()) if step not in found)
    return tuple(found)
