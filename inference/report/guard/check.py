"""The guard: which sentences of a draft the heads and the study support, and why not the others.

A sentence is supported only when every claim in it is, and every word of it is accounted for: what
the guard does not understand, it does not support. It changes no sentence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from inference.findings import Findings
from inference.report import template
from inference.report.draft import ClinicalContext, Draft, Sentence, Source, Verdict
from inference.report.guard import parsing
from inference.report.guard.evidence import Evidence
from inference.report.guard.rules import NO_SUBJECT, rule
from inference.report.guard.spelling import normal
from inference.report.guard.study import Study
from inference.report.guard.vocabulary import Kind, vocabulary

LONGEST_QUOTE = 80
LONGEST_SENTENCE = 2000
_EXAM = frozenset({Kind.MODALITY, Kind.CONTRAST, Kind.SERIES, Kind.FILLER, Kind.JOIN})


def check(draft: Draft, findings: Sequence[Findings], context: ClinicalContext) -> Draft:
    """The draft with a verdict on every sentence; deterministic, and never raises for any text.

    Args:
        draft: as written.
        findings: one analysis of each pack that read the study.
        context: of the order and the headers.
    """
    words = vocabulary().knowing(findings)
    evidence = Evidence.of(findings, words)
    study = Study.of(context, findings, words)
    own = {}
    if draft.source is Source.TEMPLATE:
        # What the template writes of these very findings says no more than they do.
        own = {s.text: s for s in template.compose(findings, context, draft.reason).sentences}
    checked = tuple(
        _verdict(sentence, "", own[sentence.text].labels)
        if sentence.text in own
        else _checked(sentence, evidence, study)
        for sentence in draft.sentences
    )
    exam = draft.exam_type if _exam_known(draft, study) else template.exam_type(context)
    return dataclasses.replace(draft, exam_type=exam, sentences=checked)


def _checked(sentence: Sentence, evidence: Evidence, study: Study) -> Sentence:
    if len(sentence.text) > LONGEST_SENTENCE:
        return _verdict(sentence, "too long to be one sentence")
    items = parsing.items(sentence.text, study.vocabulary)
    why = study.refuses(sentence.text, items)
    if why:
        return _verdict(sentence, why)
    whole = normal(sentence.text)
    found = parsing.segments(sentence.text, study.vocabulary)
    labels: dict[str, None] = {}
    for segment in found:
        ruling = rule(segment, evidence, study)
        if ruling.reason:
            quoted = f"\u201c{_short(segment.within(whole))}\u201d: " if len(found) > 1 else ""
            return _verdict(sentence, f"{quoted}{ruling.reason}")
        labels.update(dict.fromkeys(ruling.labels))
    return _verdict(sentence, "" if found else NO_SUBJECT, tuple(labels))


def _verdict(sentence: Sentence, why: str, labels: tuple[str, ...] = ()) -> Sentence:
    verdict = Verdict.UNSUPPORTED if why else Verdict.SUPPORTED
    return dataclasses.replace(sentence, verdict=verdict, reason=why, labels=() if why else labels)


def _exam_known(draft: Draft, study: Study) -> bool:
    """Whether the examination is named in words that order and headers bear out."""
    if draft.exam_type == template.exam_type(study.context):
        return True
    items = parsing.items(draft.exam_type, study.vocabulary)
    if study.refuses(draft.exam_type, items):
        return False
    return bool(items) and all(item.kind in _EXAM for item in items)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 3]}..."
