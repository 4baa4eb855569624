"""Several studies in one call: the numbers of each alone, and each alone in its failure."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from factories import dicom, model_packs

from inference import registry
from inference.engine import Engine
from inference.errors import DeviceError, InputError, NotAvailableError, OutOfMemoryError
from inference.findings import Findings, Status
from inference.neurovfm import analyse, batching
from inference.neurovfm.batching import Packed
from inference.study import SeriesInput, StudyInput

SIZES = {"small": (16, 40, 40), "middle": (20, 48, 48), "large": (24, 64, 64)}
PACK = "random"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """One engine with a random pack."""
    return Engine([model_packs.random_pack(tmp_path_factory.mktemp("pack"))], "cpu")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[StudyInput]:
    """Three CT studies of different size."""
    made = []
    for name, size in SIZES.items():
        folder = tmp_path_factory.mktemp(name)
        files = tuple(dicom.save_all(dicom.ct_series(*size, key=name), folder))
        made.append(StudyInput(f"1.2.{len(made)}", "CT", (SeriesInput(name, "CT", name, files),)))
    return made


@pytest.fixture(scope="module")
def alone(engine: Engine, studies: list[StudyInput]) -> list[Findings]:
    """What each study gets by itself."""
    return [engine.analyse(study, PACK) for study in studies]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of every call of the encoder."""
    return watch(monkeypatch, lambda _tokens: None)


def watch(monkeypatch: pytest.MonkeyPatch, check: Callable[[int], None]) -> list[int]:
    """Record the tokens of every encoder call, after `check` had its chance to raise."""
    seen: list[int] = []
    original = batching.embed

    def embed(model: Any, packed: Packed, **options: Any) -> torch.Tensor:
        seen.append(len(packed.tokens))
        check(len(packed.tokens))
        return original(model, packed, **options)

    monkeypatch.setattr(batching, "embed", embed)
    return seen


def assert_same(found: Findings, expected: Findings) -> None:
    """Probabilities within float rounding, and the place of every finding."""
    assert found.study_uid == expected.study_uid
    assert found.status is expected.status
    assert found.series == expected.series
    for one, other in zip(found.findings, expected.findings, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
        assert (one.grounding is None) is (other.grounding is None)
        if one.grounding is not None and other.grounding is not None:
            np.testing.assert_allclose(one.grounding.saliency, other.grounding.saliency, atol=1e-4)
            assert one.grounding.key_sop_uid == other.grounding.key_sop_uid


def test_studies_together_get_what_each_gets_alone(
    engine: Engine, studies: list[StudyInput], alone: list[Findings], passes: list[int]
) -> None:
    """One pass of the encoder for all of them; order, numbers and places stay."""
    told: list[str] = []
    found = engine.analyse_many(studies, PACK, told.append)
    assert len(passes) == 1
    for one, expected in zip(found, alone, strict=True):
        assert_same(one, expected)
        assert set(one.timings_s) == {"read", "encode", "grounding", "load", "total"}
        assert one.device == "cpu"
    assert told[0] == "reading study 1 of 3"
    assert told[-1] == f"analysing {passes[0]} tokens of 3 studies"


def test_tokens_wait_for_each_other_only_up_to_the_budget(
    engine: Engine,
    studies: list[StudyInput],
    alone: list[Findings],
    passes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory follows the budget, not the number of studies."""
    monkeypatch.setattr(batching, "CPU_TOKEN_BUDGET", 2)
    found = engine.analyse_many(studies, PACK)
    assert len(passes) == len(studies)
    for one, expected in zip(found, alone, strict=True):
        assert_same(one, expected)


def test_a_study_that_does_not_fit_the_memory_fails_alone(
    engine: Engine,
    studies: list[StudyInput],
    alone: list[Findings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What runs out together is tried apart; the one too large for the device says so."""
    full = OutOfMemoryError("full")
    sizes = sorted(watch_sizes(engine, studies))

    def check(tokens: int) -> None:
        if tokens >= sizes[-1]:
            raise full

    watch(monkeypatch, check)
    found = engine.analyse_many(studies, PACK)
    assert [one.status for one in found] == [Status.SUCCEEDED, Status.SUCCEEDED, Status.FAILED]
    assert found[2].reason == "the study does not fit the device's memory"
    for one, expected in zip(found[:2], alone[:2], strict=True):
        assert_same(one, expected)


def watch_sizes(engine: Engine, studies: list[StudyInput]) -> list[int]:
    """Tokens of each study."""
    with pytest.MonkeyPatch.context() as patch:
        seen = watch(patch, lambda _tokens: None)
        for study in studies:
            engine.analyse(study, PACK)
    return seen


def test_memory_that_ran_out_once_is_tried_again(
    engine: Engine,
    studies: list[StudyInput],
    alone: list[Findings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shortage that passes costs time, no answer."""
    left = [OutOfMemoryError("full")] * 2

    def check(_tokens: int) -> None:
        if left:
            raise left.pop()

    watch(monkeypatch, check)
    for one, expected in zip(engine.analyse_many(studies, PACK), alone, strict=True):
        assert_same(one, expected)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ZeroDivisionError("SECRET^NAME"), "unexpected ZeroDivisionError in the model"),
        (InputError("tokens and bounds differ"), "tokens and bounds differ"),
    ],
)
def test_a_bad_study_fails_alone(
    engine: Engine,
    studies: list[StudyInput],
    alone: list[Findings],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    """Whatever reading one of them provokes, the others are answered."""
    original = analyse.gather

    def gather(study: StudyInput, *rest: Any) -> Any:
        if study is studies[1]:
            raise error
        return original(study, *rest)

    monkeypatch.setattr(analyse, "gather", gather)
    found = engine.analyse_many(studies, PACK)
    assert (found[1].status, found[1].reason) == (Status.FAILED, reason)
    assert found[1].study_uid == studies[1].study_uid
    assert_same(found[0], alone[0])
    assert_same(found[2], alone[2])


def test_studies_without_anything_to_read_are_among_the_answers(
    engine: Engine, studies: list[StudyInput], alone: list[Findings]
) -> None:
    """Not attempted, in their place in the list."""
    found = engine.analyse_many(
        [StudyInput("1", "PT", ()), studies[0], StudyInput("2", "CT", ())], PACK
    )
    reasons = [one.reason for one in found]
    assert reasons == ["the pack does not read PT", "", "the study has no series"]
    assert_same(found[1], alone[0])
    assert engine.analyse_many([], PACK) == []


def test_a_broken_device_is_raised(
    engine: Engine, studies: list[StudyInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead GPU says nothing of any study."""

    def check(_tokens: int) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    watch(monkeypatch, check)
    with pytest.raises(DeviceError):
        engine.analyse_many(studies, PACK)


def test_a_family_without_batches_analyses_one_at_a_time(
    engine: Engine,
    studies: list[StudyInput],
    alone: list[Findings],
    passes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`analyse_many` is for every family; batching is for those that have it."""
    plain = replace(registry.FAMILIES["neurovfm"], analyse_many="")
    monkeypatch.setitem(registry.FAMILIES, "neurovfm", plain)
    found = engine.analyse_many(studies, PACK)
    assert len(passes) == len(studies)
    for one, expected in zip(found, alone, strict=True):
        assert_same(one, expected)


def test_visual_tokens_are_made_by_the_report_package(
    engine: Engine, studies: list[StudyInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine lends the loaded pack, and asks for less when memory ends."""
    asked: list[float] = []

    def visual_tokens(study: StudyInput, _pack: Any, device: Any, _tell: Any, scale: float) -> str:
        asked.append(scale)
        if len(asked) < 2:
            raise OutOfMemoryError("full")
        return f"{study.study_uid} on {device}"

    module = types.ModuleType("made_tokens")
    module.visual_tokens = visual_tokens  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_tokens", module)
    monkeypatch.setattr(registry, "VISUAL_TOKENS", "made_tokens:visual_tokens")
    assert engine.visual_tokens(studies[0], PACK) == "1.2.0 on cpu"
    assert asked == [1.0, 0.25]


def test_visual_tokens_that_cannot_be_made_are_refused(
    engine: Engine, studies: list[StudyInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, before a study is read."""
    monkeypatch.setattr(registry, "VISUAL_TOKENS", "inference.study:nothing_here")
    with pytest.raises(NotAvailableError, match="visual tokens"):
        engine.visual_tokens(studies[0], PACK)
