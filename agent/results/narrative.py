"""The drafted report as a narrative in the SR: one text a sentence, linked to what supports it.

A TID 1501 group of its own, like everything that no row of the template foresees. Each sentence is
INFERRED FROM the tracking UIDs of the findings that support it (Comprehensive 3D SR, PS3.3 table
A.35.13-2), so that a reader can go from the sentence to the finding's group, mask and key image.
"""

from __future__ import annotations

import pydicom
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from agent.results import codes as concepts
from agent.results import context as contexts
from agent.results import measurements, sentences
from agent.results.text import plain
from inference.report.draft import Draft, Sentence, Source, Verdict

UNVERIFIED = (
    "UNVERIFIED DRAFT. AI generated, not reviewed by a physician, not a report. Research use only. "
    "What it does not mention is not excluded."
)
AUTHORS = {
    Source.MODEL: "language model",
    Source.TEMPLATE: "fixed wording of the findings, no language model",
}
NOTHING = "No finding was drafted."
MAX_SENTENCE = 2000


def draft_groups(
    context: contexts.ResultContext,
) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    """The draft of this context, as none or one group."""
    draft = context.draft
    if draft is None:
        return []
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=context.uid("tracking", "draft", context.edition), identifier="AI draft, unverified"
        ),
        algorithm_id=measurements.algorithm(context, [f"draft-source={draft.source.value}"]),
    )
    items = group[0]
    measurements.add_text(items, concepts.DRAFT_STATEMENT, UNVERIFIED)
    measurements.add_text(items, concepts.DRAFT_AUTHOR, _author(draft))
    measurements.add_text(items, concepts.DRAFT_EXAM, draft.exam_type)
    told = sentences.told(draft, unsupported=context.options.unsupported_sentences)
    for sentence in told:
        items.ContentSequence.append(_sentence(context, sentence))
    if draft.unremarkable:
        measurements.add_text(items, concepts.DRAFT_FINDING, NOTHING)
    left_out = len(draft.sentences) - len(told)
    if left_out:
        text = f"{left_out} of {len(draft.sentences)}: the analysis does not support them"
        measurements.add_text(items, concepts.DRAFT_LEFT_OUT, text)
    return [group]


def _author(draft: Draft) -> str:
    reason = f"; {draft.reason}" if draft.reason else ""
    return f"{draft.model} ({AUTHORS[draft.source]}){reason}"


def _sentence(context: contexts.ResultContext, sentence: Sentence) -> Dataset:
    text = plain(sentence.text, MAX_SENTENCE) or "(not representable)"
    if sentence.verdict is Verdict.UNSUPPORTED:
        text = f"[UNSUPPORTED: {plain(sentence.reason, 200)}] {text}"
    item = sr.TextContentItem(
        name=concepts.DRAFT_FINDING,
        value=text,
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )
    known = {finding.label for finding in context.findings.findings}
    links = [_link(context, label) for label in sentence.labels if label in known]
    if links:
        item.ContentSequence = pydicom.Sequence(links)
    return item


def _link(context: contexts.ResultContext, label: str) -> Dataset:
    return sr.UIDRefContentItem(
        name=codes.DCM.TrackingUniqueIdentifier,
        value=context.uid("tracking", "label", label),
        relationship_type=sr.RelationshipTypeValues.INFERRED_FROM,
    )
