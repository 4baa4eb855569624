"""The inference process: its crash, its silence and its end are facts, not disasters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from factories import hospital, model_packs, peers
from factories.hospital import Sample

from agent.analysis import child, process
from agent.analysis.process import InferenceProcess, InlineEngine
from agent.errors import AnalysisError, AnalysisInterrupted, ExplanationYielded
from inference.errors import DeviceError, PackError
from inference.explain.options import ExplainOptions
from inference.findings import Findings, PackRef, Status
from inference.study import SeriesInput, StudyInput


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose answer is known."""
    return model_packs.bright_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyInput:
    """A CT in which it finds something."""
    one: Sample = hospital.sample(tmp_path_factory.mktemp("study"), "1")
    return StudyInput(one.study_uid, "CT", (SeriesInput("1", "CT", "head", one.files),))


@pytest.fixture
def made(pack: Path) -> Iterator[Any]:
    """Makes inference processes and ends them."""
    all_made: list[InferenceProcess] = []

    def make(timeout_s: float = 120.0, **options: Any) -> InferenceProcess:
        all_made.append(InferenceProcess({"test": pack}, "cpu", timeout_s, **options))
        return all_made[-1]

    yield make
    for one in all_made:
        one.stop()


def _in_background(work: Any, *arguments: Any) -> Future[Any]:
    executor = ThreadPoolExecutor(1)
    future = executor.submit(work, *arguments)
    executor.shutdown(wait=False)
    return future


def _child(inference: InferenceProcess) -> psutil.Process:
    peers.wait_for("a child", lambda: inference.alive)
    return psutil.Process(inference._child.pid)


@pytest.mark.slow
def test_child_answers_as_the_engine_does_and_is_replaced_after_its_death(
    made: Any, pack: Path, study: StudyInput
) -> None:
    """Findings cross the process border unchanged; a crash while idle costs no study anything."""
    restarted: list[int] = []
    inference = made(on_restart=lambda: restarted.append(1))
    inference.start()
    inference.revive()
    first = _child(inference)
    found = inference.analyse(study, "test")
    here = InlineEngine({"test": pack}, "cpu").analyse(study, "test")

    assert found.status is Status.SUCCEEDED
    assert [(f.label, f.present) for f in found.findings] == [("bright_tissue", True)]
    assert found.findings[0].probability == pytest.approx(here.findings[0].probability, abs=1e-5)

    several = inference.analyse_many([study, study], "test")
    assert [f.findings[0].probability for f in several] == pytest.approx(
        [here.findings[0].probability] * 2, abs=1e-5
    )
    with pytest.raises(AnalysisError):  # the pack has no [report] section
        inference.visual_tokens(study, "test")
    assert psutil.pid_exists(first.pid)

    first.kill()
    peers.wait_for("its death to be known", lambda: not inference.alive)
    inference.revive()
    assert inference.alive
    assert restarted == [1]
    assert inference.analyse(study, "test").status is Status.SUCCEEDED

    with pytest.raises(AnalysisError, match="KeyError"):
        inference.analyse(study, "unknown")
    assert inference.alive


def test_death_during_a_study_is_a_passing_fault(made: Any, study: StudyInput) -> None:
    """The study is tried again with a new child."""
    inference = made()
    answer = _in_background(inference.analyse, study, "test")
    _child(inference).kill()

    with pytest.raises(AnalysisError, match=r"died \(exit code -9\)") as caught:
        answer.result(60)
    assert caught.value.permanent is False
    assert not isinstance(caught.value, AnalysisInterrupted)
    assert not inference.alive


def test_silence_ends_the_child_and_names_the_setting(made: Any, study: StudyInput) -> None:
    """A study that hangs does not hold the others for ever."""
    inference = made(timeout_s=0.01)

    with pytest.raises(AnalysisError, match=r"inference\.timeout_s"):
        inference.analyse(study, "test")
    assert not inference.alive


def test_several_studies_have_the_time_of_each_together(
    made: Any, monkeypatch: pytest.MonkeyPatch, study: StudyInput
) -> None:
    """Three studies in one request are given three times as long as one."""
    inference = made(timeout_s=0.01)
    monkeypatch.setattr(process, "POLL_S", 0.01)

    with pytest.raises(AnalysisError, match=r"no answer within 0\.03 s"):
        inference.analyse_many([study] * 3, "test")
    assert inference.analyse_many([], "test") == []


def test_stop_interrupts_the_study_at_hand_and_takes_no_other(made: Any, study: StudyInput) -> None:
    """Stopping is told apart from dying: it costs the study no attempt."""
    inference = made()
    answer = _in_background(inference.analyse, study, "test")
    child = _child(inference)
    inference.stop()

    with pytest.raises(AnalysisInterrupted):
        answer.result(60)
    with pytest.raises(AnalysisInterrupted):
        inference.analyse(study, "test")
    inference.revive()
    assert not child.is_running()


def test_revive_never_waits_for_a_study(made: Any, study: StudyInput) -> None:
    """The health sweep is not held up while a study is analysed."""
    inference = made()
    with inference._lock:
        done = _in_background(inference.revive)
        done.result(5)


class Connection:
    """Keeps what the child would send."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        """Keep it."""
        self.sent.append(message)


@pytest.mark.parametrize(
    ("error", "goes_on", "said"),
    [
        (PackError("pack x: altered"), True, "pack x: altered"),
        (DeviceError("cuda: gone"), False, "cuda: gone"),
        (ValueError("Doe^Jane"), True, "ValueError"),
    ],
)
def test_child_tells_errors_in_safe_words_and_leaves_a_broken_device(
    error: Exception, goes_on: bool, said: str, study: StudyInput
) -> None:
    """Only a new process gets a new device context; anything else may be tried in this one."""

    class Broken(InlineEngine):
        def analyse(self, *_: Any) -> Findings:
            raise error

    connection: Any = Connection()
    request = child.Request("analyse", (study,), "test")
    assert child._serve(Broken({}, "cpu"), connection, request) is goes_on

    ((kind, words),) = connection.sent
    assert kind == "error"
    assert said in words
    assert "Doe" not in words


def test_one_pack_may_be_configured_twice(pack: Path, study: StudyInput) -> None:
    """Live for CT and in shadow mode for MR, say: both names reach the same model."""
    engine = InlineEngine({"live": pack, "shadow": pack}, "cpu")

    assert engine.analyse(study, "live").status is Status.SUCCEEDED
    assert engine.analyse(study, "shadow").status is Status.SUCCEEDED


def test_child_leaves_when_its_parent_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the middle of a study, so that no orphan holds the GPU."""
    left = threading.Event()
    monkeypatch.setattr(child.os, "getppid", lambda: 1)
    monkeypatch.setattr(child.os, "_exit", lambda _code: left.set())

    child._exit_with(parent=2)

    assert left.is_set()


NOTHING = Findings("1.2", Status.SUCCEEDED, PackRef("test", "1", "", "", ""))


class Pipe:
    """The child's end of the pipe; says `word` as soon as it is asked."""

    def __init__(self, word: str) -> None:
        self.sent: list[Any] = []
        self._words = [word]

    def send(self, message: Any) -> None:
        """Keep it."""
        self.sent.append(message)

    def poll(self) -> bool:
        """Whether it has something to say."""
        return bool(self._words)

    def recv(self) -> str:
        """What it says."""
        return self._words.pop()


def test_child_gives_an_explanation_up_when_it_is_told_to(study: StudyInput) -> None:
    """At its next step; a word that comes after the answer is no request."""

    class Slow(InlineEngine):
        def explain(self, *arguments: Any) -> Findings:
            arguments[-1]("one of many samples")
            pytest.fail("it went on")

    pipe: Any = Pipe(child.YIELD)
    subject = (NOTHING.to_json(), ExplainOptions())
    request = child.Request("explain", (study,), "test", subject)
    assert child._serve(Slow({}, "cpu"), pipe, request)
    assert [kind for kind, _ in pipe.sent] == ["progress", child.YIELD]
    assert child._serve(Slow({}, "cpu"), pipe, child.YIELD)


def test_a_study_that_waits_ends_an_explanation(made: Any, study: StudyInput) -> None:
    """The parent tells the child at once; without anybody waiting it tells it nothing."""
    inference = made()
    ours, told = FakeConnection(), list[str]()
    ours.send = told.append  # type: ignore[method-assign]
    request = child.Request("explain", (study,), "test", (NOTHING.to_json(), ExplainOptions()))
    ours.answers = [("progress", "1 of 9"), ("answer", NOTHING.to_json())]
    assert inference._answer(ours, request, None) == NOTHING
    assert told == []

    inference._waiting.add(1)
    ours.answers = [("progress", "1 of 9"), (child.YIELD, "another study waited")]
    with pytest.raises(ExplanationYielded):
        inference._answer(ours, request, None)
    assert told == [child.YIELD]


def test_an_analysis_that_nobody_waits_for_gives_way_too(made: Any, study: StudyInput) -> None:
    """To a study that waits, and when its time is over; the engine may not hide it as a failure."""

    class Hiding(InlineEngine):
        def analyse(self, *arguments: Any) -> Findings:
            for _ in range(2):
                with contextlib.suppress(Exception):
                    arguments[-1]("a step")
            return NOTHING

    pipe: Any = Pipe(child.YIELD)
    request = child.Request("analyse", (study,), "test", aside_s=60.0)
    assert child._serve(Hiding({}, "cpu"), pipe, request)
    assert [kind for kind, _ in pipe.sent][-1] == child.YIELD

    inference = made()
    for waiting, seconds in ((True, 60.0), (False, 1e-9)):
        ours, told = FakeConnection(), list[str]()
        ours.send = told.append  # type: ignore[method-assign]
        inference._waiting = {1} if waiting else set()
        ours.answers = [("progress", "a step"), (child.YIELD, "given up")]
        request = child.Request("analyse", (study,), "test", aside_s=seconds)
        with pytest.raises(ExplanationYielded):
            inference._answer(ours, request, None)
        assert told == [child.YIELD]
    with inference._lock, pytest.raises(ExplanationYielded, match="busy"):
        inference.analyse_aside(study, "test", 0.01)


class FakeConnection:
    """The parent's end of the pipe, with its answers prepared."""

    answers: list[tuple[str, str]]

    def send(self, message: str) -> None:
        """Replaced by the test."""
        raise NotImplementedError

    def poll(self, _timeout_s: float) -> bool:
        """There is always an answer."""
        return True

    def recv(self) -> tuple[str, str]:
        """The next one."""
        return self.answers.pop(0)


def test_a_pack_that_needs_no_explanation_gives_its_findings_back(
    pack: Path, study: StudyInput
) -> None:
    """Attention grounds NeuroVFM's findings already."""
    engine = InlineEngine({"test": pack}, "cpu")
    assert engine.explain(study, "test", NOTHING, ExplainOptions()) == NOTHING
