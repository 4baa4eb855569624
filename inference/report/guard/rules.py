"""Whether one segment is supported: its claim, its side, its time, and every word besides."""

from __future__ import annotations

from dataclasses import dataclass

from inference.report.guard.evidence import Answer, Evidence, State
from inference.report.guard.segments import Item, Polarity, Segment
from inference.report.guard.sides import Side
from inference.report.guard.study import Study
from inference.report.guard.vocabulary import Kind
from inference.report.template import percent

_UNGRADED = {
    Kind.GRADE: "no head tells size, shape, degree or cause",
    Kind.COUNT: "no head counts",
    Kind.PLACE: "no head tells a place finer than a side",
    Kind.STRUCTURE: "no head tells a place finer than a side",
}
_FINER = (Kind.GRADE, Kind.COUNT, Kind.PLACE, Kind.VAGUE, Kind.SWEEPING)
_PERSON = (Kind.AGE, Kind.MALE, Kind.FEMALE)
NO_SUBJECT = "names nothing that a head looks for"
EVERYTHING = "speaks of everything, and no head sees everything"


@dataclass(frozen=True)
class Ruling:
    """Why a segment is unsupported (empty = it is supported), and by what it is supported."""

    reason: str
    labels: tuple[str, ...] = ()


def rule(segment: Segment, evidence: Evidence, study: Study) -> Ruling:
    """Decide on one segment of a sentence."""
    why = _words(segment, study)
    if why or segment.of(Kind.HISTORY):
        return Ruling(why)
    if segment.of(Kind.CONCEPT):
        return _concepts(segment, evidence)
    if segment.well:
        return _well(segment, evidence)
    if segment.of(Kind.SWEEPING, Kind.WELL):
        return Ruling(EVERYTHING)
    if segment.of(*_PERSON) and not segment.of(Kind.VAGUE) and segment.polarity is Polarity.SAYS:
        return Ruling(study.presented(segment))
    return Ruling(NO_SUBJECT)


def _words(segment: Segment, study: Study) -> str:
    """What is wrong with a segment whatever the heads say."""
    if segment.polarity is Polarity.UNCLEAR:
        return "whether this is said or denied cannot be told"
    if segment.of(Kind.HISTORY):
        return study.person(segment) or study.told(segment)
    person = study if segment.of(*_PERSON) else None
    return study.person(segment) or _unknown(segment, person) or _outside(segment, study)


def _unknown(segment: Segment, study: Study | None) -> str:
    for item in segment.of(Kind.UNKNOWN):
        if study is None or not study.ordered(item):
            return f"nothing here confirms {item.text!r}"
    return ""


def _outside(segment: Segment, study: Study) -> str:
    structures = study.vocabulary.structures
    named = () if segment.well else segment.of(Kind.STRUCTURE)
    found = (*segment.of(Kind.OUTSIDE), *(i for i in named if structures[i.value].outside))
    return f"no head looks there ({found[0].text!r})" if found else ""


def _concepts(segment: Segment, evidence: Evidence) -> Ruling:
    """Every concept of a segment, said or denied."""
    if segment.of(Kind.SWEEPING, Kind.WELL):
        return Ruling(EVERYTHING)
    judge = _denied if segment.polarity is Polarity.DENIES else _said
    rulings = [judge(segment, item, evidence) for item in segment.of(Kind.CONCEPT)]
    why = next((ruling.reason for ruling in rulings if ruling.reason), "")
    if why:
        return Ruling(why)
    return Ruling("", tuple(dict.fromkeys(label for r in rulings for label in r.labels)))


def _said(segment: Segment, item: Item, evidence: Evidence) -> Ruling:
    answer = evidence.of_concept(item.value)
    if answer.state is State.ABSENT:
        return Ruling(f"the heads say absent: {_heard(answer)}")
    if answer.state is State.UNSEEN:
        return Ruling(_nobody(item, evidence))
    for time in _times(segment):
        timed = evidence.at_time(item.value, time)
        if timed.state is not State.PRESENT:
            return Ruling(f"no head says that {item.text!r} is {time}")
        answer = timed
    why = _side(segment, item, answer, evidence) or _ungraded(segment)
    return Ruling(why, () if why else answer.labels)


def _denied(segment: Segment, item: Item, evidence: Evidence) -> Ruling:
    """A denial is wider than its words: with fewer qualifiers absent, the qualified is too."""
    answer = evidence.of_concept(item.value)
    if answer.state is State.UNSEEN:
        return Ruling(_nobody(item, evidence))
    if answer.state is State.ABSENT:
        return Ruling("", answer.labels)
    times = _times(segment)
    if len(times) == 1:
        timed = evidence.at_time(item.value, times[0])
        if timed.state is State.ABSENT:
            return Ruling("", timed.labels)
    wanted = _sides(segment)
    if len(wanted) == 1 and answer.grounded and answer.sides and not wanted & answer.sides:
        return Ruling("", answer.labels)
    return Ruling(f"the heads say present: {_heard(answer)}")


def _side(segment: Segment, item: Item, answer: Answer, evidence: Evidence) -> str:
    wanted = _sides(segment)
    if not wanted:
        return ""
    if not evidence.vocabulary.concepts[item.value].sided:
        return f"no head tells a side of {item.text!r}"
    if not any(finding.grounding for finding in answer.findings):
        return f"the side of {item.text!r} was not determined"
    if wanted <= answer.sides:
        return ""
    seen = " and ".join(sorted(answer.sides)) or "at the midline"
    return f"{item.text!r} was seen {seen}"


def _sides(segment: Segment) -> frozenset[Side]:
    found = set()
    if segment.of(Kind.LEFT, Kind.BILATERAL):
        found.add(Side.LEFT)
    if segment.of(Kind.RIGHT, Kind.BILATERAL):
        found.add(Side.RIGHT)
    return frozenset(found)


def _times(segment: Segment) -> tuple[str, ...]:
    return tuple(kind.value for kind in (Kind.ACUTE, Kind.CHRONIC) if segment.of(kind))


def _ungraded(segment: Segment) -> str:
    for item in segment.of(*_UNGRADED):
        return f"{_UNGRADED[item.kind]} ({item.text!r})"
    return ""


def _well(segment: Segment, evidence: Evidence) -> Ruling:
    """A structure is well when heads see what could be wrong with it and say absent."""
    if segment.polarity is Polarity.DENIES:
        return Ruling("no head sees that something is not well, only what is wrong")
    if len(_sides(segment)) == 1 or segment.of(*_FINER):
        return Ruling("no head sees just a part of it")
    labels: list[str] = []
    for item in segment.of(Kind.STRUCTURE):
        structure = evidence.vocabulary.structures[item.value]
        for name in structure.needs + structure.also:
            answer = evidence.of_concept(name)
            if answer.state is State.PRESENT:
                return Ruling(f"the heads say present: {_heard(answer)}")
            if answer.state is State.UNSEEN and name in structure.needs:
                return Ruling(f"no head looks for {name.replace('_', ' ')}")
            labels += answer.labels
    return Ruling("", tuple(dict.fromkeys(labels)))


def _nobody(item: Item, evidence: Evidence) -> str:
    if not evidence.findings:
        return "no analysis gave findings"
    broader = evidence.broader_present(item.value)
    known = f"; present is only {broader!r}, which is broader" if broader else ""
    return f"no head looks for {item.text!r}{known}"


def _heard(answer: Answer) -> str:
    return ", ".join(f"{f.display} ({percent(f.probability)})" for f in answer.findings[:3])
