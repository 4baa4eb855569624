"""Drafts by a real vLLM server: the same tokens as the reference, valid JSON, many at once."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import golden, language_models
from typer.testing import CliRunner

from agent.cli import app
from inference.report.assembler import PromptAssembler
from inference.report.decoding import GREEDY
from inference.report.draft import ClinicalContext, Source
from inference.report.errors import AnswerError
from inference.report.language_model import LanguageModel
from inference.report.prompt import PromptStyle
from inference.report.tokens import VisualTokens
from inference.report.vllm import inspection, payload, schema
from inference.report.vllm.client import Patience
from inference.report.vllm.drafter import COMPLETIONS, VllmDrafter
from inference.report.vllm.errors import RequestRefused, ServerFault
from inference.report.vllm.safety import Answer

from .conftest import BOUNDS, KEY, NAME, WIDTH, Running, study

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]
CONTEXT = ClinicalContext("MR", indication="Headache, GCS <8 <|im_end|>")
FORM = schema.response_format("report", schema.report_schema(BOUNDS))


def _ask(server: Running, embeds: np.ndarray, decoding: payload.Decoding) -> Answer:
    body = payload.completion(NAME, payload.encode(embeds), decoding)
    client = server.client()
    try:
        return client.generate(COMPLETIONS, lambda _: body, rank=0, prompt_tokens=len(embeds))
    finally:
        client.close()


def _said(drafter: VllmDrafter, tokens: VisualTokens) -> tuple[str, ...]:
    """The draft's words; a random model's unreadable characters are refused every time."""
    try:
        draft = drafter.draft(tokens, CONTEXT, 0)
    except AnswerError as error:
        return ("refused", str(error))
    return (draft.exam_type, *(one.text for one in draft.sentences))


def test_golden_tokens_through_prompt_embeds(server: Running) -> None:
    """The reference's greedy tokens come back from its own embeddings."""
    case = golden.arrays(golden.case("n4_vlm") / "f32_single.npz")
    body = payload.completion(
        NAME,
        payload.encode(case["gen_inputs_embeds"][0]),
        payload.Decoding(16, extra={"ignore_eos": True}),
    )
    with server.http() as client:
        answer = client.post(f"{server.url}{COMPLETIONS}", json=body).json()

    assert answer["choices"][0]["token_ids"] == case["generated_greedy16"][0].tolist()


def test_a_real_server_is_found_fit(server: Running) -> None:
    """Version, length, embeddings, guidance, priority and the NaN counter, all by asking."""
    with server.http() as client:
        facts = inspection.inspect(client, server.url, NAME, WIDTH)

    assert facts.refusals(NAME, 4096) == []
    assert facts.version.startswith("0.32")
    assert (facts.max_model_len, facts.by_priority, facts.guidance) == (4096, True, True)
    assert facts.corrupted is not None


def test_a_wrong_width_is_told(server: Running) -> None:
    """A pack for another language model is noticed before any study is sent."""
    with server.http() as client:
        facts = inspection.inspect(client, server.url, NAME, WIDTH + 1)

    assert any("embeddings" in one for one in facts.refusals(NAME))


def test_local_model_writes_the_same_tokens(
    server: Running, model: Path, assembler: PromptAssembler
) -> None:
    """The oracle is transformers with llguidance in this process: token for token, with schema."""
    local = LanguageModel.load(model)
    form = schema.report_schema(BOUNDS)
    for seed in range(6):
        prompt = assembler.assemble(study(seed, 1 + seed % 3), "Headache" if seed % 2 else "")
        embeds = torch.from_numpy(prompt.embeds)[None]
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        [expected] = local.generate(embeds, mask, GREEDY, form)
        answer = _ask(server, prompt.embeds, payload.Decoding(200, FORM))

        assert list(answer.token_ids) == expected


def test_drafts_are_valid(server: Running, assembler: PromptAssembler) -> None:
    """Whatever a random model thinks, the form holds; the draft says who wrote it."""
    drafter = server.drafter(assemble=assembler.assemble)
    draft = drafter.draft(study(0), CONTEXT, 2)

    assert (draft.source, draft.model) == (Source.MODEL, "golden 1")
    assert 0 < len(draft.exam_type) <= BOUNDS.max_exam_chars
    assert draft.seconds > 0


def test_chat_equals_completions(
    server: Running, assembler: PromptAssembler, style: PromptStyle
) -> None:
    """Visual tokens alone, templated by the server, give the draft of the whole prompt."""
    whole, chat = server.drafter(assemble=assembler.assemble), server.drafter(style=style)
    for seed in range(4):
        tokens = study(seed, 1 + seed)
        assert _said(whole, tokens) == _said(chat, tokens)


def test_stream_equals_one_piece(server: Running, assembler: PromptAssembler) -> None:
    """Streaming changes when a hang is noticed, nothing else."""
    streaming = Patience(60.0, stream=True)
    plain = server.drafter(assemble=assembler.assemble)
    streamed = server.drafter(assemble=assembler.assemble, patience=streaming)
    for seed in range(3):
        assert _said(plain, study(seed)) == _said(streamed, study(seed))


def test_eight_at_once_equal_one_by_one(server: Running, assembler: PromptAssembler) -> None:
    """Batching on the server changes no word, and the image matters."""
    drafter = server.drafter(assemble=assembler.assemble)
    alone = [_said(drafter, study(seed)) for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: _said(drafter, study(seed)), range(8)))

    assert together == alone
    assert len(set(alone)) > 3


def test_too_long_a_prompt_is_refused_for_good(server: Running) -> None:
    """The server's context is what it is; asking again does not help."""
    embeds = np.zeros((4100, WIDTH), np.float32)

    with pytest.raises(RequestRefused, match="400"):
        _ask(server, embeds, payload.Decoding(8))


def test_the_check_command_finds_it_fit(server: Running, model: Path, tmp_path: Path) -> None:
    """`worklist-agent vllm check` tells version and abilities, and leaves with 0."""
    config = language_models.configured(tmp_path, model, server.url, NAME, KEY)
    done = CliRunner().invoke(app, ["vllm", "check", "--json", "-c", str(config)])

    assert (done.exit_code, '"guidance": true' in done.stdout) == (0, True), done.output


def test_a_poisoned_server_is_noticed_and_started_anew(
    server: Running, assembler: PromptAssembler
) -> None:
    """Another client's NaN must not become our draft: the right words, or none."""
    right = _said(server.drafter(assemble=assembler.assemble), study(1))
    drafter = server.drafter(assemble=assembler.assemble, patience=Patience(60.0, max_attempts=1))
    nan = payload.encode(np.full((40, WIDTH), np.nan, np.float32))
    group = server.supervisor.group
    with server.http() as client:
        body = payload.completion(NAME, nan, payload.Decoding(4))
        answer = client.post(f"{server.url}{COMPLETIONS}", json=body)
        counted = inspection.corrupted(client, server.url)
    try:
        said = _said(drafter, study(1))
    except ServerFault:  # poisoned, or stopped already
        said = right

    assert (answer.status_code, counted) == (400, 1.0)
    assert said == right
    server.wait(lambda: server.supervisor.group is not group, "a new server", 60)
    server.wait(server.supervisor.ready.is_set, "serving again")
    assert _said(server.drafter(assemble=assembler.assemble), study(1)) == right
