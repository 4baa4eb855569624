"""What the heads say of a concept: present, absent, or not looked for."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inference.findings import DIAGNOSIS, Finding, Findings, Status
from inference.report.guard.sides import Side, sides
from inference.report.guard.vocabulary import Vocabulary

ANALYZED = (Status.SUCCEEDED, Status.PARTIAL)


class State(enum.Enum):
    """What is known of a concept."""

    PRESENT = "present"
    ABSENT = "absent"
    UNSEEN = "unseen"


@dataclass(frozen=True)
class Answer:
    """A state and the findings that say so."""

    state: State
    findings: tuple[Finding, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Ids of these findings, each once."""
        return tuple(dict.fromkeys(finding.label for finding in self.findings))

    @property
    def sides(self) -> frozenset[Side]:
        """The sides on which any of them was seen."""
        grounded = (f.grounding for f in self.findings if f.grounding is not None)
        return frozenset(side for grounding in grounded for side in sides(grounding))

    @property
    def grounded(self) -> bool:
        """Whether all of them say where."""
        return bool(self.findings) and all(f.grounding is not None for f in self.findings)


@dataclass(frozen=True)
class Evidence:
    """The findings of a study by concept."""

    vocabulary: Vocabulary
    findings: Mapping[str, tuple[Finding, ...]]

    @staticmethod
    def of(findings: Sequence[Findings], vocabulary: Vocabulary) -> Evidence:
        """The diagnoses of every analysis that came to an end."""
        found: dict[str, list[Finding]] = {}
        for one in findings:
            if one.status in ANALYZED:
                for finding in one.findings:
                    if finding.kind == DIAGNOSIS:
                        name = vocabulary.of_label[finding.label]
                        found.setdefault(name, []).append(finding)
        return Evidence(vocabulary, {name: tuple(these) for name, these in found.items()})

    def of_concept(self, name: str) -> Answer:
        """What is known of a concept.

        Present when a head of it, or of anything narrower, says so. Absent when its own heads say
        so, or every part of it is absent, or something broader is. Otherwise nobody looked.
        """
        present = self._present(self.vocabulary.below(name))
        if present:
            return Answer(State.PRESENT, present)
        absent = self._absent(name) or next(
            filter(None, map(self._absent, self._broader(name))), ()
        )
        return Answer(State.ABSENT, absent) if absent else Answer(State.UNSEEN)

    def at_time(self, name: str, time: str) -> Answer:
        """What is known of the acute or chronic form of a concept."""
        concepts = self.vocabulary.concepts
        forms = [n for n in self.vocabulary.below(name) if concepts[n].time == time]
        present = self._present(forms)
        if present:
            return Answer(State.PRESENT, present)
        direct = [n for n in forms if n == name or name in concepts[n].parents]
        absent = tuple(f for n in direct for f in self._absent(n))
        return Answer(State.ABSENT, absent) if absent else Answer(State.UNSEEN)

    def own(self, name: str) -> tuple[Finding, ...]:
        """What heads of exactly this concept say."""
        return self.findings.get(name, ())

    def broader_present(self, name: str) -> str:
        """Display name of something broader that is present; empty when nothing is."""
        found = self._present(self.vocabulary.above(name))
        return found[0].display if found else ""

    def _broader(self, name: str) -> list[str]:
        """Broader concepts of which nothing at all is present."""
        above = self.vocabulary.above(name)
        return [n for n in above if not self._present(self.vocabulary.below(n))]

    def _present(self, names: Iterable[str]) -> tuple[Finding, ...]:
        found = [f for name in names for f in self.own(name) if f.present]
        return tuple(sorted(found, key=lambda f: (f.grounding is None, -f.probability)))

    def _absent(self, name: str) -> tuple[Finding, ...]:
        """The findings by which a concept is absent; empty when it is not known to be."""
        own = self.own(name)
        if own:
            return () if any(f.present for f in own) else own
        parts = [self._absent(part) for part in self.vocabulary.concepts[name].parts]
        return tuple(f for part in parts for f in part) if parts and all(parts) else ()
