"""Asking replicas: inspected first, tried again where it helps, left alone when they fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from factories.vllm_stand_in import MODEL, REPORT, WIDTH, StandIn, completion, stream

from inference.report.draft import ClinicalContext
from inference.report.errors import AnswerError, DraftError
from inference.report.prompt import PromptEmbeddings
from inference.report.tokens import VisualTokens
from inference.report.vllm import inspection
from inference.report.vllm.breaker import Breaker
from inference.report.vllm.client import Patience, VllmClient
from inference.report.vllm.drafter import Recipe, VllmDrafter
from inference.report.vllm.errors import (
    NoReplica,
    RequestRefused,
    ServerFault,
    ServerPoisoned,
    ServerUnfit,
    UnsafeEmbeddings,
)
from inference.report.vllm.pool import Pool, Replica
from inference.report.vllm.safety import EmbeddingLimits
from inference.report.vllm.schema import Bounds

CONTEXT = ClinicalContext("MR", indication="fall")
TOKENS = VisualTokens(("1.2",), np.full((1, 4, WIDTH), 0.1, np.float32))


class House:
    """Several stand-ins behind one HTTP client, and a clock that only sleeping moves."""

    def __init__(self, *servers: StandIn, patience: Patience | None = None, limit: int = 8) -> None:
        self.servers = {f"http://s{n}": one for n, one in enumerate(servers)}
        self.now = 1000.0
        self.slept: list[float] = []
        replicas = [Replica(url, Breaker(after=2, for_s=30.0)) for url in self.servers]
        self.pool = Pool(replicas, limit, clock=lambda: self.now)
        self.client = VllmClient(
            httpx.Client(transport=httpx.MockTransport(self._answer)),
            self.pool,
            MODEL,
            WIDTH,
            patience or Patience(timeout_s=100.0, max_attempts=3),
            clock=lambda: self.now,
            sleep=self._sleep,
            spread=lambda: 1.0,
        )

    def drafter(self, **changes: Any) -> VllmDrafter:
        """A drafter of whole prompts: the tokens are the prompt."""
        recipe = {
            "model": MODEL,
            "shown": "pack 1",
            "limits": EmbeddingLimits(WIDTH, 100),
            "bounds": Bounds(),
            "assemble": lambda tokens, _: PromptEmbeddings(
                tokens.tokens[0], np.zeros(len(tokens.tokens[0]), np.int64)
            ),
        }
        return VllmDrafter(self.client, Recipe(**{**recipe, **changes}))

    def draft(self, rank: int = 1) -> Any:
        """One draft."""
        return self.drafter().draft(TOKENS, CONTEXT, rank)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def _answer(self, request: httpx.Request) -> httpx.Response:
        return self.servers[f"http://{request.url.host}"](request)


def _breaks(error: type[httpx.TransportError]) -> Callable[[Any], Any]:
    def answer(_: Any) -> Any:
        raise error("it broke")

    return answer


def _in_turn(*answers: Any) -> Callable[[Any], Any]:
    rest: Iterator[Any] = iter(answers)

    def answer(body: Any) -> Any:
        one = next(rest)
        return one(body) if callable(one) else one

    return answer


def test_a_draft_is_what_the_server_wrote() -> None:
    """Sentences, writer, and the request that asked for them."""
    server = StandIn()
    draft = House(server).draft(rank=2)
    [body] = server.bodies

    assert (draft.exam_type, [one.text for one in draft.sentences]) == ("MR head", ["Mass."])
    assert draft.model == "pack 1"
    assert (body["priority"], body["response_format"]["type"]) == (2, "json_schema")


def test_priority_is_sent_only_where_the_server_schedules_by_it() -> None:
    """Others answer 400 to it."""
    server = StandIn(by_priority=False)
    House(server).draft(rank=2)

    assert "priority" not in server.bodies[0]


@pytest.mark.parametrize(
    "fault",
    [
        httpx.Response(500),
        httpx.Response(503),
        httpx.Response(429),
        _breaks(httpx.RemoteProtocolError),
        _breaks(httpx.ReadError),
        _breaks(httpx.ConnectError),
        _breaks(httpx.ReadTimeout),
        httpx.Response(200, text="<html>"),
        {"error": {"message": "EngineCore encountered an issue"}},
        httpx.Response(400, json={"error": {"message": "Out of range float values are not JSON"}}),
    ],
)
def test_a_passing_fault_is_tried_again_elsewhere(fault: Any) -> None:
    """The second replica is asked, not the one that failed."""
    first, second = StandIn(draft=_in_turn(fault)), StandIn()
    house = House(first, second)

    assert house.draft().exam_type == "MR head"
    assert (len(first.bodies), len(second.bodies)) == (1, 1)
    assert house.slept == [0.5]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(400, json={"error": {"message": "bad"}}), RequestRefused),
        (httpx.Response(422), RequestRefused),
        (completion(finish_reason="length"), AnswerError),
        (completion("no JSON"), AnswerError),
        (completion('{"exam_type":"MR"}'), AnswerError),
        (completion(rows=9), AnswerError),
    ],
)
def test_what_would_come_again_is_not_asked_again(answer: Any, error: type) -> None:
    """Greedy decoding repeats itself; a template takes the draft's place."""
    server = StandIn(draft=_in_turn(answer))
    with pytest.raises(error) as raised:
        House(server).draft()

    assert raised.value.permanent
    assert len(server.bodies) == 1


def test_attempts_are_bounded_and_spread() -> None:
    """Three attempts, twice the wait before each, then the fault as it was."""
    server = StandIn(draft=lambda _: httpx.Response(500))
    house = House(server, patience=Patience(timeout_s=100.0, max_attempts=3))
    house.pool.replicas[0].breaker.after = 9
    with pytest.raises(ServerFault, match="HTTP 500") as raised:
        house.draft()

    assert not raised.value.permanent
    assert (len(server.bodies), house.slept) == (3, [0.5, 1.0])


def test_a_replica_that_keeps_failing_is_left_alone_and_tried_again() -> None:
    """Two failures open its breaker; after the break one request finds out, inspected anew."""
    broken = httpx.Response(500)
    server = StandIn(draft=_in_turn(broken, broken, completion()))
    house = House(server, patience=Patience(timeout_s=10.0, max_attempts=1))
    for _ in range(2):
        with pytest.raises(ServerFault):
            house.draft()
    with pytest.raises(NoReplica, match="left alone"):
        house.draft()
    probes = server.probes
    house.now += 31.0

    assert house.draft().exam_type == "MR head"
    assert len(server.bodies) == 3
    assert server.probes > probes


def test_a_poisoned_server_is_left_alone_at_once() -> None:
    """What it says of other studies cannot be believed either."""
    server = StandIn(draft=_in_turn(completion(token_ids=[0] * 6)))
    house = House(server, patience=Patience(timeout_s=10.0, max_attempts=1))
    with pytest.raises(ServerPoisoned):
        house.draft()
    with pytest.raises(NoReplica):
        house.draft()
    assert len(server.bodies) == 1


def test_an_answer_is_dropped_when_the_nan_counter_grew_meanwhile() -> None:
    """Our answer may be one of those that were counted."""
    server = StandIn()

    def answer(_: Any) -> Any:
        server.corrupted = 1.0
        return completion()

    server.draft = answer
    with pytest.raises(ServerPoisoned, match="NaN"):
        House(server, patience=Patience(timeout_s=10.0, max_attempts=1)).draft()


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (StandIn(honours=False), "ignores the JSON schema"),
        (StandIn(guidance=False), "guidance"),
        (StandIn(version="0.31.9"), "0.32 or newer"),
        (StandIn(version=""), "unknown"),
    ],
)
def test_an_unfit_server_is_never_sent_a_study(server: StandIn, words: str) -> None:
    """Options that are ignored without a word are found out by asking for what nobody guesses."""
    with pytest.raises(ServerUnfit, match=words):
        House(server, patience=Patience(timeout_s=10.0, max_attempts=1)).draft()
    assert server.bodies == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_no_request_is_made_with_harmful_embeddings(bad: float) -> None:
    """Neither as a whole prompt nor as the visual tokens of a chat."""
    server = StandIn()
    values = TOKENS.tokens.copy()
    values[0, 1, 2] = bad
    tokens = VisualTokens(("1.2",), values)
    house = House(server)
    for drafter in (house.drafter(), house.drafter(assemble=None)):
        with pytest.raises(UnsafeEmbeddings):
            drafter.draft(tokens, CONTEXT, 0)
    assert server.probes == 0


def test_a_wrong_key_is_the_operators_to_mend() -> None:
    """The study can be drafted later."""
    with pytest.raises(ServerUnfit, match="api_key_file") as raised:
        House(
            StandIn(draft=_in_turn(httpx.Response(401))),
            patience=Patience(timeout_s=10.0, max_attempts=1),
        ).draft()
    assert not raised.value.permanent


def test_a_stream_with_an_error_inside_fails() -> None:
    """HTTP 200 and [DONE], and yet no answer."""
    server = StandIn(
        draft=lambda _: stream(
            {"choices": [{"index": 0, "text": REPORT}]}, {"error": {"message": "x"}}
        )
    )
    house = House(server, patience=Patience(timeout_s=10.0, max_attempts=1, stream=True))
    with pytest.raises(ServerFault, match="error inside the stream"):
        house.draft()
    assert server.bodies[0]["stream"] is True


def test_chat_sends_visual_tokens_only() -> None:
    """The server writes the prompt; it must have read at least what was sent."""
    message = {"content": REPORT}
    logprobs = {"content": [{"logprob": -0.1}]}
    good = completion(text=None, rows=30, message=message, logprobs=logprobs)
    server = StandIn(draft=lambda _: good)
    draft = House(server).drafter(assemble=None).draft(TOKENS, CONTEXT, 0)

    assert draft.exam_type == "MR head"
    assert '"prompt_embeds"' in json.dumps(server.bodies[0]["messages"])
    server.draft = lambda _: {**good, "usage": {"prompt_tokens": 3, "completion_tokens": 3}}
    with pytest.raises(AnswerError, match="at least 4"):
        House(server).drafter(assemble=None).draft(TOKENS, CONTEXT, 0)


def test_the_least_busy_replica_is_asked() -> None:
    """And none beyond its limit."""
    pool = Pool([Replica("a"), Replica("b")], 2, clock=lambda: 0.0)
    with (
        pool.lease(0, 1.0) as one,
        pool.lease(0, 1.0) as two,
        pool.lease(0, 1.0, avoid=("a",)) as three,
        pool.lease(0, 1.0) as four,
    ):
        assert [one.url, two.url, three.url, four.url] == ["a", "b", "b", "a"]
        with pytest.raises(NoReplica, match="free in time"), pool.lease(0, 0.0):
            pass
    assert [one.outstanding for one in pool.replicas] == [0, 0]


def test_the_most_urgent_study_is_next() -> None:
    """Whoever came first waits, if the other is more urgent."""
    import time

    pool = Pool([Replica("a")], 1)
    order: list[int] = []
    deadline = time.monotonic() + 30

    def wait(rank: int) -> None:
        with pool.lease(rank, deadline):
            order.append(rank)

    with pool.lease(0, deadline):
        threads = [threading.Thread(target=wait, args=(rank,)) for rank in (3, 0, 2, 1)]
        for n, thread in enumerate(threads, start=1):
            thread.start()
            while len(pool._waiting) < n and time.monotonic() < deadline:
                time.sleep(0.001)
    for thread in threads:
        thread.join()

    assert order == [0, 1, 2, 3]


def test_a_breaker_lets_one_request_find_out() -> None:
    """Not all that wait rush to a server that has just come back."""
    breaker = Breaker(after=1, for_s=10.0)
    breaker.begin()
    assert breaker.failed(0.0)
    assert not breaker.allows(9.9)
    assert breaker.allows(10.0)
    breaker.begin()
    assert not breaker.allows(10.0)
    assert breaker.failed(10.0)
    assert not breaker.allows(19.0)
    breaker.begin()
    breaker.succeeded()
    assert breaker.allows(19.0)


def test_no_answer_of_a_server_is_quoted() -> None:
    """Its words may hold the request, and that is a patient's."""
    echo = httpx.Response(400, json={"error": {"message": "Doe^Jane fell"}})
    with pytest.raises(DraftError) as raised:
        House(StandIn(draft=_in_turn(echo))).draft()
    assert "Doe" not in str(raised.value)


def test_inspection_tells_what_a_server_lacks() -> None:
    """For `vllm check`: each fact as found."""
    client = httpx.Client(transport=httpx.MockTransport(StandIn(corrupted=None, by_priority=False)))
    facts = inspection.inspect(client, "http://s0", MODEL, WIDTH)

    assert facts.refusals(MODEL) == []
    assert (facts.by_priority, facts.corrupted, facts.max_model_len) == (False, None, 1024)
    assert "max_model_len" in facts.refusals(MODEL, 5000)[0]
    assert "serves tiny" in facts.refusals("other")[0]
