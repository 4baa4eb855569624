"""The guard: what supports a sentence, what does not, and that no text upsets it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from factories import guard_cases
from hypothesis import given
from hypothesis import strategies as st

from inference.findings import REFERRAL, Findings, Status
from inference.report import template
from inference.report.draft import ClinicalContext, Sentence, Source, Verdict
from inference.report.guard import check
from inference.report.guard.sides import Side, sides
from inference.report.guard.vocabulary import Kind, vocabulary

CT = ClinicalContext("CT")
HEADS = ("neurovfm_ct", "neurovfm_mr", "prima", "demo_ct", "demo_mr")
SCENES = ("ct_subdural", "ct_clear", "ct_demo", "mr_stroke", "mr_glioma", "mr_subdural")
WORDS = sorted({" ".join(p[0]) for found in vocabulary().phrases.values() for p in found})


def judged(text: str, *findings: Findings, context: ClinicalContext = CT) -> Sentence:
    """A sentence with its verdict."""
    return check(guard_cases.draft(text), findings, context).sentences[0]


def in_scene(text: str, name: str) -> Sentence:
    """A sentence about a scene of the table."""
    scene = guard_cases.scene(name)
    return judged(text, *scene.findings, context=scene.context)


@pytest.mark.parametrize("head", HEADS)
def test_every_published_label_is_known_by_its_name(head: str) -> None:
    """Its display name alone is supported when it is present, by that very label."""
    words = vocabulary()
    for label, display in guard_cases.published(head).items():
        assert label in words.of_label, label
        analysis = guard_cases.analysis([guard_cases.finding(label, display, "nowhere")])
        age = 5.0 if "pediatric" in display.lower() else 50.0
        context = ClinicalContext("MR", age_years=age)
        sentence = judged(f"{display}.", analysis, context=context)
        assert sentence.verdict is Verdict.SUPPORTED, (display, sentence.reason)
        assert sentence.labels == (label,)


@pytest.mark.parametrize("head", HEADS)
def test_every_published_label_is_denied_when_absent(head: str) -> None:
    """To deny it is supported by the label that says absent; to claim it is not."""
    for label, display in guard_cases.published(head).items():
        analysis = guard_cases.analysis([guard_cases.finding(label, display)])
        context = ClinicalContext("MR", age_years=5.0 if "pediatric" in display.lower() else 50.0)
        said = judged(f"{display}.", analysis, context=context)
        assert said.verdict is Verdict.UNSUPPORTED, display
        text = f"No {display[0].lower()}{display[1:]}."
        denied = judged(text, analysis, context=context)
        assert denied.verdict is Verdict.SUPPORTED, (display, denied.reason)


def test_concepts_hang_together() -> None:
    """Parents, parts and structures name concepts that exist, without a circle."""
    words = vocabulary()
    for concept in words.concepts.values():
        assert {*concept.parents, *concept.parts} <= set(words.concepts)
        assert concept.name not in words.above(concept.name)[1:]
    for structure in words.structures.values():
        assert {*structure.needs, *structure.also} <= set(words.concepts)


def test_labels_of_an_unknown_pack_are_known_by_their_display_names() -> None:
    """A pack of the house needs no entry in the table."""
    analysis = guard_cases.analysis([guard_cases.finding("x1", "Zebra stripes", "left")])
    assert judged("Left zebra stripes.", analysis).labels == ("x1",)
    assert judged("No zebra stripes.", analysis).verdict is Verdict.UNSUPPORTED


def test_reason_names_the_clause() -> None:
    """Of a compound sentence the reader learns which part is not supported."""
    sentence = in_scene("Left subdural hematoma with uncal herniation.", "ct_subdural")
    assert (
        sentence.reason
        == "\u201cuncal herniation\u201d: the heads say absent: Brain herniation (4 %)"
    )


def test_absent_and_not_looked_for_are_told_apart() -> None:
    """A head that says no is another reason than no head."""
    assert "the heads say absent" in in_scene("Epidural hematoma.", "ct_demo").reason
    assert "no head looks for" in in_scene("Sinusitis.", "ct_demo").reason
    assert "no analysis gave findings" in in_scene("Sinusitis.", "not_analyzed").reason


def test_a_broader_finding_does_not_support_a_narrower_one() -> None:
    """And the reason says what is there."""
    reason = in_scene("Chronic subdural hematoma.", "mr_subdural").reason
    assert "which is broader" in reason


def test_one_head_that_sees_it_is_enough_and_too_much_for_a_denial() -> None:
    """Of two packs that disagree, the one that says present speaks."""
    yes = guard_cases.analysis([guard_cases.finding("glioma", "Glioma", "left")])
    no = guard_cases.analysis([guard_cases.finding("tumor_adult_glioma", "Glioma")], "other")
    assert judged("Left glioma.", yes, no).labels == ("glioma",)
    assert judged("No glioma.", yes, no).verdict is Verdict.UNSUPPORTED


def test_failed_analyses_and_referrals_support_nothing() -> None:
    """Only diagnoses of an analysis that came to an end count."""
    found = guard_cases.finding("glioma", "Glioma", "left")
    failed = dataclasses.replace(guard_cases.analysis([found]), status=Status.FAILED)
    referral = guard_cases.analysis([dataclasses.replace(found, kind=REFERRAL)])
    assert judged("Glioma.", failed).verdict is Verdict.UNSUPPORTED
    assert judged("Glioma.", referral).verdict is Verdict.UNSUPPORTED


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("left", {Side.LEFT}),
        ("right", {Side.RIGHT}),
        ("both", {Side.LEFT, Side.RIGHT}),
        ("middle", set()),
    ],
)
def test_sides_are_those_of_the_patient(place: str, expected: set[Side]) -> None:
    """Left is where x grows; within the tolerance there is no side."""
    assert sides(guard_cases.grounding(place)) == expected


def test_damaged_grounding_tells_no_side() -> None:
    """Numbers that are none neither raise nor count."""
    whole = guard_cases.grounding("left")
    broken = np.full((4, 4), np.nan)
    assert sides(dataclasses.replace(whole, grid_to_patient=broken)) == frozenset()
    empty = np.full_like(whole.saliency, np.nan)
    assert sides(dataclasses.replace(whole, saliency=empty)) == frozenset()


def test_midline_finding_has_no_side() -> None:
    """What lies within the tolerance supports neither side."""
    analysis = guard_cases.analysis([guard_cases.finding("glioma", "Glioma", "middle")])
    assert "at the midline" in judged("Left glioma.", analysis).reason


def test_template_draft_is_supported_where_these_findings_give_its_very_words() -> None:
    """Its limits, too; a sentence that this template would not write is checked as any other."""
    scene = guard_cases.scene("ct_subdural")
    draft = template.compose(scene.findings, scene.context)
    forged = Sentence("Meningioma: strongly suspected, model probability 98 %.")
    draft = dataclasses.replace(draft, sentences=(*draft.sentences, forged))
    checked = check(draft, scene.findings, scene.context)
    *own, other = checked.sentences
    assert {s.verdict for s in own} == {Verdict.SUPPORTED}
    assert own[0].labels
    assert own[-1].labels == ()
    assert other.verdict is Verdict.UNSUPPORTED
    lied = dataclasses.replace(draft, source=Source.MODEL)
    verdicts = {s.verdict for s in check(lied, scene.findings, scene.context).sentences}
    assert verdicts == {Verdict.UNSUPPORTED}


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("CT head without contrast", "CT head without contrast"),
        ("MRI brain", "CT, without contrast agent"),
        ("CT head of Jane Miller", "CT, without contrast agent"),
        ("CT cervical spine", "CT, without contrast agent"),
        ("", "CT, without contrast agent"),
    ],
)
def test_examination_is_named_as_order_and_headers_bear_out(written: str, shown: str) -> None:
    """What they do not bear out gives way to their own words."""
    scene = guard_cases.scene("ct_subdural")
    draft = guard_cases.draft("Midline shift.", exam_type=written)
    assert check(draft, scene.findings, scene.context).exam_type == shown


def test_identity_is_not_repeated_in_the_reason() -> None:
    """The reason travels further than the sentence."""
    assert "4711" not in in_scene("MRN 0471123: midline shift.", "ct_subdural").reason


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("58-year-old woman with left-sided weakness.", Verdict.SUPPORTED),
        ("58-year-old woman with left-sided weakness and acute infarct.", Verdict.SUPPORTED),
        ("58-year-old woman with right-sided weakness.", Verdict.UNSUPPORTED),
        ("58-year-old woman with aphasia.", Verdict.UNSUPPORTED),
        ("History of left-sided weakness.", Verdict.SUPPORTED),
        ("History of weakness this morning.", Verdict.UNSUPPORTED),
        ("Indication:", Verdict.UNSUPPORTED),
        ("Male patient with acute infarct.", Verdict.UNSUPPORTED),
        ("Pediatric patient with acute infarct.", Verdict.UNSUPPORTED),
    ],
)
def test_what_is_said_of_the_patient_stands_in_order_and_header(
    text: str, verdict: Verdict
) -> None:
    """Age, sex and complaints in the order's own words; the side of a complaint, too."""
    sentence = in_scene(text, "mr_stroke")
    assert sentence.verdict is verdict, sentence.reason


@pytest.mark.parametrize("indication", ["Stroke?", "No history of stroke", "Possible stroke"])
def test_an_order_that_asks_or_denies_tells_no_history(indication: str) -> None:
    """Its words may be quoted as the indication and not turned into a fact."""
    context = ClinicalContext("CT", indication=indication)
    assert judged("History of stroke.", context=context).verdict is Verdict.UNSUPPORTED
    quoted = judged(f"Indication: {indication}", context=context)
    assert quoted.verdict is Verdict.SUPPORTED, quoted.reason


def test_endless_text_is_not_taken_apart() -> None:
    """No sentence is that long; a writer that runs on must not hold up the node."""
    assert in_scene("no hemorrhage, " * 1000, "ct_clear").reason == "too long to be one sentence"


pieces = st.one_of(st.sampled_from(WORDS), st.sampled_from([",", ";", ".", "9 mm", "(", "Miller"]))
texts = st.one_of(st.text(max_size=80), st.lists(pieces, max_size=10).map(" ".join))


@given(texts, st.sampled_from(SCENES))
def test_no_text_upsets_the_guard_and_the_same_text_gets_the_same_verdict(
    text: str, name: str
) -> None:
    """Deterministic, never raises, never leaves a sentence unchecked or changed."""
    first, second = in_scene(text, name), in_scene(text, name)
    assert first == second
    assert first.text == text
    assert first.verdict is not Verdict.UNCHECKED
    assert bool(first.reason) is (first.verdict is Verdict.UNSUPPORTED)
    assert not (first.reason and first.labels)


@given(st.sampled_from(sorted(vocabulary().concepts)), st.data(), st.sampled_from(SCENES))
def test_a_finding_and_its_denial_are_never_both_supported(
    concept: str, data: st.DataObject, name: str
) -> None:
    """Negating flips: at most one of "X" and "no X" stands, in whatever words."""
    words = data.draw(st.sampled_from(vocabulary().concepts[concept].words))
    denial = data.draw(
        st.sampled_from(["No {}.", "There is no evidence of {}.", "{} is not seen."])
    )
    said, denied = in_scene(f"{words}.", name), in_scene(denial.format(words), name)
    assert Verdict.UNSUPPORTED in {said.verdict, denied.verdict}
    twice = in_scene(f"It is not so that there is no {words}.", name)
    assert twice.verdict is Verdict.UNSUPPORTED


@given(
    texts, st.sampled_from(SCENES), st.sampled_from(["9 mm", "unchanged", "Miller", "2024-01-31"])
)
def test_what_nobody_knows_spoils_any_sentence(text: str, name: str, poison: str) -> None:
    """A measurement, a comparison, a name or a date makes every sentence unsupported."""
    assert in_scene(f"{text} {poison}", name).verdict is Verdict.UNSUPPORTED


@given(texts, st.lists(st.sampled_from(SCENES), min_size=2, max_size=2))
def test_sentences_are_judged_one_by_one(text: str, names: list[str]) -> None:
    """What stands beside a sentence does not change its verdict."""
    scene = guard_cases.scene(names[0])
    draft = guard_cases.draft("No hemorrhage.", text, "Glioma.")
    assert check(draft, scene.findings, scene.context).sentences[1] == in_scene(text, names[0])


def test_every_word_of_the_tables_is_reachable() -> None:
    """No phrase means two things: the one that came first would hide the other."""
    for found in vocabulary().phrases.values():
        by_words: dict[tuple[str, ...], set[Kind]] = {}
        for words, meaning in found:
            by_words.setdefault(words, set()).add(meaning.kind)
        twice = {words: kinds for words, kinds in by_words.items() if len(kinds) > 1}
        assert not twice


INDEPENDENT = {
    "pneumocephalus": "pneumocephalus",
    "cerebral edema": "cerebral_edema",
    "midline shift": "midline_shift",
    "herniation": "brain_herniation",
    "contusion": "brain_contusion",
    "sinusitis": "sinusitis",
    "colloid cyst": "colloid_cyst",
    "brain abscess": "cerebral_abscess",
}
#: A sentence about a, b and c, and which of them it says are there.
SHAPES = (
    ("No {}, {} or {}.", (False, False, False)),
    ("{}, {} and {} are present.", (True, True, True)),
    ("{} with {}, without {}.", (True, True, False)),
    ("No {}; {} and {}.", (False, True, True)),
    ("There is {} and no {}, but there is {}.", (True, False, True)),
    ("{}, {} and {} are not seen.", (False, False, False)),
    ("Neither {} nor {} is present; {} is noted.", (False, False, True)),
    ("Likely {}. No evidence of {} or {}.", (True, False, False)),
    ("{} is absent, {} is present; no {}.", (False, True, False)),
)


@given(
    st.permutations(sorted(INDEPENDENT)),
    st.tuples(*[st.booleans()] * 3),
    st.sampled_from(SHAPES),
)
def test_compound_sentence_is_supported_exactly_when_every_clause_is_true(
    order: list[str], truth: tuple[bool, ...], shape: tuple[str, tuple[bool, ...]]
) -> None:
    """Whatever the heads say, and in whatever shape three findings are said or denied."""
    names = order[:3]
    labels = [INDEPENDENT[name] for name in names]
    found = [
        guard_cases.finding(label, name, "nowhere" if there else "")
        for label, name, there in zip(labels, names, truth, strict=True)
    ]
    text, said = shape
    sentence = judged(text.format(*names), guard_cases.analysis(found))
    assert (sentence.verdict is Verdict.SUPPORTED) is (said == truth), sentence.reason
    assert set(sentence.labels) == (set(labels) if said == truth else set())
