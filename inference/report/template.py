"""A draft without a language model: the heads' findings in plain sentences, by rule.

The same findings give the same sentences. A label below its threshold is never called absent, and
nothing is called normal: the heads know their labels and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from inference.findings import DIAGNOSIS, Acuity, Finding, Findings, Status
from inference.report.draft import ClinicalContext, Draft, Sentence, Source

NO_MODEL = "worded by rule from the findings of the diagnostic heads; no language model took part"
STRONG, PLAIN = 0.9, 0.7
"""Probabilities from which a finding is strongly suspected, or suspected; below it is possible."""
URGENCY = (Acuity.URGENT, Acuity.ROUTINE, Acuity.NORMAL)
ANALYZED = (Status.SUCCEEDED, Status.PARTIAL)


def compose(
    findings: Sequence[Findings], context: ClinicalContext, reason: str = NO_MODEL
) -> Draft:
    """Word the findings of one study, from one pack or several.

    Args:
        findings: one analysis of each pack.
        context: of the order and the headers.
        reason: why a template and not a model; shown with the draft.
    """
    analyzed = [one for one in findings if one.status in ANALYZED]
    present = _present(analyzed)
    sentences = [_sentence(group) for group in present]
    if analyzed:
        sentences.append(_limits(analyzed, bool(present)))
    sentences += [Sentence(text) for text in _gaps(findings)]
    packs = dict.fromkeys(f"{one.pack.name} {one.pack.version}" for one in findings)
    return Draft(
        exam_type=exam_type(context),
        sentences=tuple(sentences),
        source=Source.TEMPLATE,
        model=f"template on {', '.join(packs)}" if packs else "template",
        reason=reason or NO_MODEL,
    )


def exam_type(context: ClinicalContext) -> str:
    """The examination as far as the headers tell: modality, body part, contrast."""
    body = " ".join(context.body_part.split()).lower()
    contrast = {None: "", True: "with contrast agent", False: "without contrast agent"}
    return ", ".join(part for part in (context.modality, body, contrast[context.contrast]) if part)


def likelihood(probability: float) -> str:
    """A probability in words."""
    if probability >= STRONG:
        return "strongly suspected"
    return "suspected" if probability >= PLAIN else "possible"


def percent(probability: float) -> str:
    """A probability as a reader may take it: never 0 or 100 %."""
    whole = round(100 * probability)
    if whole >= 100:
        return "over 99 %"
    return "under 1 %" if whole < 1 else f"{whole} %"


def _present(analyzed: Sequence[Findings]) -> list[list[Finding]]:
    """Findings above threshold, those of several packs with one code and site together."""
    groups: dict[tuple[object, object], list[Finding]] = {}
    for one in analyzed:
        for finding in one.positives:
            groups.setdefault((finding.code, finding.site), []).append(finding)
    ordered = [sorted(group, key=lambda f: -f.probability) for group in groups.values()]
    return sorted(ordered, key=_rank)


def _rank(group: Sequence[Finding]) -> tuple[int, float, str]:
    first = group[0]
    return min(URGENCY.index(f.acuity) for f in group), -first.probability, first.label


def _sentence(group: Sequence[Finding]) -> Sentence:
    first = group[0]
    site = first.site.meaning if first.site else ""
    known = site and site.lower() not in first.display.lower()
    name = f"{first.display} (site: {site.lower()})" if known else first.display
    voices = f", by {len(group)} models" if len(group) > 1 else ""
    text = f"{name}: {likelihood(first.probability)}{voices}, model probability "
    return Sentence(
        f"{text}{percent(first.probability)}.", labels=tuple(dict.fromkeys(f.label for f in group))
    )


def _limits(analyzed: Sequence[Findings], found: bool) -> Sentence:
    """What was looked for, and that the rest was not excluded."""
    labels = {f.code for one in analyzed for f in one.findings if f.kind == DIAGNOSIS}
    count = len(labels)
    if not count:
        return Sentence("The analysis looks for no diagnosis; it says nothing about findings.")
    if found:
        return Sentence(
            f"{_of(count)} looked for, no other reached its threshold; this does not exclude them."
        )
    return Sentence(
        f"{_of(count)} looked for, none reached its threshold; this does not show that the "
        "examination is normal."
    )


def _of(count: int) -> str:
    return "Of 1 finding" if count == 1 else f"Of {count} findings"


def _gaps(findings: Sequence[Findings]) -> Iterator[str]:
    """What was not analyzed, or not wholly, and why."""
    if not findings:
        yield "The images were not analyzed."
    for one in findings:
        why = f": {one.reason}" if one.reason else ""
        if one.status not in ANALYZED:
            yield f"The images were not analyzed by {one.pack.name}{why}."
        elif one.status is Status.PARTIAL:
            yield f"The analysis by {one.pack.name} is incomplete{why}."
        used = sum(series.used for series in one.series)
        if one.status in ANALYZED and used < len(one.series):
            yield f"{one.pack.name} read {used} of {len(one.series)} series."
