"""Prima's recipes in miniature: the loss falls, a stopped run goes on, the pack runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import dicom
from factories import prima_training as small
from factories.prima import TOKENIZER
from typer.testing import CliRunner

from agent.cli import app
from agent.commands.common import ExitCode
from inference import packs
from inference.checkpoints import read_state_dict
from inference.engine import Engine
from inference.manifest import HeadKind
from inference.prima import importing, loading
from inference.prima.preparation import make_series
from inference.prima.quantizer import Codebook
from inference.report.errors import DraftError
from training import loop
from training.data.splits import Split
from training.data.table import StudyRow, read_table, write_table
from training.prima import cache
from training.prima.clip.recipe import ClipRun, report_of
from training.prima.clip.recipe import train as train_clip
from training.prima.heads import labels
from training.prima.heads.fitting import HeadConfig, best_threshold
from training.prima.heads.recipe import HeadsRun, write_pack
from training.prima.heads.recipe import train as train_heads
from training.prima.sampling import NO_DROPOUT, Dropout, show
from training.prima.series_names.recipe import SeriesNamesRun
from training.prima.series_names.recipe import train as train_names
from training.prima.summaries import summarise
from training.prima.vqvae import recipe as vqvae
from training.runtime import Place, RunError

PLACE = Place(torch.device("cpu"))
TOKENIZER_RUN = vqvae.TokenizerRun(TOKENIZER, tokens=6, files=2, steps=10, rate=3e-3, device="cpu")
CLIP = ClipRun(
    size=small.SIZE,
    text=small.TEXT,
    batch=4,
    joined=2,
    steps=20,
    rate=5e-3,
    warm_up=2,
    dropout=Dropout(percent=1),
    device="cpu",
)


@pytest.fixture(autouse=True)
def _one_thread(_two_threads: None) -> None:
    """Tensors this small gain nothing from a second one."""
    torch.set_num_threads(1)


def falls(losses: Sequence[float]) -> bool:
    """Whether the last quarter lies below the first."""
    quarter = max(1, len(losses) // 4)
    return float(np.mean(losses[-quarter:])) < 0.9 * float(np.mean(losses[:quarter]))


def rows(names: Sequence[str], folder: Path) -> list[StudyRow]:
    """Studies whose report tells what only odd ones show."""
    found = []
    for number, name in enumerate(names):
        odd = number % 2
        truth = {"tumor": odd, "referral_neurosurgery": odd}
        truth |= {f"priority_{level}": 0 for level in ("none", "low", "high")}
        truth["priority_high" if odd else "priority_none"] = 1
        text = f"case {number}: " + ("a large mass" if odd else "normal")
        found.append(StudyRow(name, folder, f"p{number}", "MR", report=text, labels=truth))
    return found


def test_the_tokenizer_learns_and_loads_where_inference_loads_it(tmp_path: Path) -> None:
    """Loss falls; the file is the published one: a bare state_dict, strictly loaded."""
    names = small.blocks(tmp_path / "blocks")
    losses = vqvae.train(tmp_path / "blocks", names, TOKENIZER_RUN, tmp_path / "run")
    made = loading.build_tokenizer(
        json.loads((tmp_path / "run/tokenizer.json").read_text()),
        tmp_path / "run/vqvae.pth",
        torch.device("cpu"),
    )
    book = made.model.quantizer.quantizer

    assert falls(losses)
    assert float(book.ema_cluster_size.sum()) > 0


def test_a_run_that_was_stopped_ends_in_the_same_weights(tmp_path: Path) -> None:
    """Five steps and seven more give what twelve give."""
    names = small.blocks(tmp_path / "blocks")
    whole = vqvae.train(tmp_path / "blocks", names, TOKENIZER_RUN, tmp_path / "whole")
    first = vqvae.train(
        tmp_path / "blocks", names, replace(TOKENIZER_RUN, steps=5), tmp_path / "parts"
    )
    rest = vqvae.train(tmp_path / "blocks", names, TOKENIZER_RUN, tmp_path / "parts")

    assert first + rest == pytest.approx(whole, rel=1e-6)
    for key, value in read_state_dict(tmp_path / "whole/vqvae.pth").items():
        torch.testing.assert_close(value, read_state_dict(tmp_path / "parts/vqvae.pth")[key])


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    """Never half loaded."""
    names = small.blocks(tmp_path / "blocks", studies=1)
    run = replace(TOKENIZER_RUN, steps=1)
    vqvae.train(tmp_path / "blocks", names, run, tmp_path / "run")
    wider = {**TOKENIZER, "num_embeddings": 32}
    with pytest.raises(RunError, match="another size"):
        vqvae.train(
            tmp_path / "blocks", names, replace(run, tokenizer=wider, steps=2), tmp_path / "run"
        )


def test_blocks_are_shown_in_every_orientation() -> None:
    """The thin axis is doubled, then any of the three."""
    made = [
        vqvae.permuted(torch.zeros(2, 4, 32, 32), np.random.default_rng(seed)).shape[2:]
        for seed in range(12)
    ]
    assert {tuple(shape) for shape in made} == {(8, 32, 32), (32, 8, 32), (32, 32, 8)}


def test_series_names_begin_the_main_training(tmp_path: Path) -> None:
    """Both losses fall; the pre-trained encoder stands in the study model, bypass and all."""
    names = small.latents(tmp_path / "latents")
    run = SeriesNamesRun(
        small.SMALL, 2, small.NAME_SIZE, 16, series=6, steps=10, rate=5e-3, device="cpu"
    )
    losses = train_names(tmp_path / "latents", names, run, tmp_path / "names")
    started = train_clip(
        tmp_path / "latents",
        rows(names, tmp_path),
        replace(CLIP, steps=1, rate=0.0),
        tmp_path / "clip",
        tmp_path / "names",
    )
    state = read_state_dict(tmp_path / "clip/encoder/model.safetensors")
    taught = read_state_dict(tmp_path / "names/series_names.pt")

    assert falls(losses)
    assert len(started) == 1
    for key, value in taught.items():
        torch.testing.assert_close(state[f"serieencoder.0.{key}"], value)


def test_studies_learn_their_reports_and_heads_make_a_pack(tmp_path: Path) -> None:
    """Cache, CLIP, heads, official files, pack; the engine loads it and all labels are there."""
    names = small.latents(tmp_path / "latents", studies=12)
    table = rows(names, tmp_path)
    losses = train_clip(tmp_path / "latents", table, CLIP, tmp_path / "clip")
    division = {n: Split.VALIDATION if i >= 8 else Split.TRAIN for i, n in enumerate(names)}
    run = HeadsRun(HeadConfig((12, 8), rate=3e-3, batch=4, epochs=20), device="cpu")
    heads = train_heads(
        tmp_path / "latents", table, division, tmp_path / "clip", run, tmp_path / "heads"
    )
    vqvae.train(
        small_blocks := tmp_path / "blocks",
        small.blocks(small_blocks),
        replace(TOKENIZER_RUN, steps=1),
        tmp_path / "tokenizer",
    )
    write_pack(
        heads,
        tmp_path / "clip",
        tmp_path / "tokenizer",
        tmp_path / "heads",
        tmp_path / "pack",
        importing.Identity("site-prima", "1.0.0"),
    )

    assert falls(losses)
    assert [head.auroc for head in heads.diagnoses] == [1.0]
    packs.verify(tmp_path / "pack")
    manifest = packs.load_manifest(tmp_path / "pack")
    Engine([tmp_path / "pack"], device="cpu").pack("site-prima")
    found = {head.kind: [label.id for label in head.labels] for head in manifest.heads}
    assert found[HeadKind.DIAGNOSES] == ["tumor"]
    assert found[HeadKind.REFERRAL] == ["neurosurgery"]
    priority = manifest.head_for("MR", HeadKind.PRIORITY)
    assert priority is not None
    assert priority.levels == ("none", "low", "high")
    evaluated(tmp_path)


def evaluated(folder: Path) -> None:
    """`worklist-agent evaluate` of the pack: diagnoses, referrals and its own priority."""
    table = []
    for number, row in enumerate(rows(["a", "b"], folder)):
        series = [
            dicom.mr_series(n=8, rows=32, cols=32, study_uid=dicom.uid("e", number), key=str(key))
            for key in range(2)
        ]
        dicom.study_dir(folder / row.study, *series)
        table.append(replace(row, path=folder / row.study))
    write_table(folder / "e.csv", table)
    out = folder / "report"
    run = CliRunner().invoke(
        app, ["evaluate", str(folder / "pack"), str(folder / "e.csv"), str(out), "--card"]
    )
    assert run.exit_code == 0, run.output
    numbers = json.loads((out / "evaluation.json").read_text())
    assert [one["label"] for one in numbers["labels"]] == ["referral_neurosurgery", "tumor"]
    assert sum(sum(line.values()) for line in numbers["levels"].values()) == 2
    assert "own priority head" in (folder / "pack" / "card.md").read_text()
    packs.verify(folder / "pack")


def test_the_reference_s_warm_up_ends_at_twice_the_rate() -> None:
    """Its counter runs over micro-batches; ours over steps."""
    ours = ClipRun(rate=2e-6, warm_up=200)
    theirs = replace(ours, reference_warm_up=True)
    assert ours.rate_at(199) == ours.rate_at(5000) == pytest.approx(2e-6)
    assert theirs.rate_at(0) == 0
    assert theirs.rate_at(100) == pytest.approx(2e-6)
    assert theirs.rate_at(200) == theirs.rate_at(5000) == pytest.approx(4e-6)


def test_without_dropout_a_study_is_shown_as_inference_reads_it(tmp_path: Path) -> None:
    """The cache's tokens are those that preparation keeps; with dropout one of each stays."""
    import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation

    rng = np.random.default_rng(3)
    voxels = rng.integers(0, 200, (8, 64, 64)).astype(np.int16)
    series = make_series(sitk.GetImageFromArray(voxels), "ax_t1", "safe")
    torch.manual_seed(0)
    from inference.prima.analyse import encode
    from inference.prima.vqvae import VQVAE, Tokenizer
    from inference.prima.vqvae_config import read_tokenizer_config

    tokenizer = Tokenizer(VQVAE(read_tokenizer_config(TOKENIZER)))
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "ax_t1.nii"))
    row = StudyRow("s0", tmp_path / "ax_t1.nii", "p0", "MR")
    report = cache.cache_latents([row], tmp_path / "latents", tokenizer)
    held = cache.read_latents(cache.file_of(tmp_path / "latents", "s0"))
    shown = show(held, NO_DROPOUT, rng).series[0]
    wanted = encode(series, tokenizer)

    assert report.stored == 1
    assert torch.equal(shown.coords, wanted.coords)
    torch.testing.assert_close(shown.latents, wanted.latents, atol=2e-3, rtol=2e-3)
    assert (shown.axis, shown.name) == (wanted.axis, "ax_t1")
    bare = show(held, Dropout(1.0, 1.0, 1.0, 0), rng)
    assert len(bare.series) == len(bare.series[0].coords) == 1
    assert bare.series[0].name == bare.description == "unk"
    again = cache.cache_latents([row], tmp_path / "latents", tokenizer)
    assert (again.stored, again.known) == (0, 1)


def test_the_most_accurate_threshold_is_chosen() -> None:
    """Of -5 to 2 in steps of 0.2."""
    logits = np.array([-4.0, -1.1, -0.7, 1.5])
    half = np.array([False, False, True, True])
    assert best_threshold(half, logits) == pytest.approx(-1.0)
    assert best_threshold(np.array([True] * 4), logits) == -5.0


def test_columns_become_diagnoses_referrals_and_levels(tmp_path: Path) -> None:
    """By their prefix; levels that no published head has are refused."""
    found = labels.read_columns(rows(["s0"], tmp_path))
    assert found == labels.Columns(("tumor",), ("neurosurgery",), ("none", "low", "high"))
    odd = StudyRow("s", tmp_path, "p", labels={"priority_urgent": 1})
    with pytest.raises(RunError, match="urgent"):
        labels.read_columns([odd])


def test_a_summary_goes_before_the_report(tmp_path: Path) -> None:
    """Unless the run says otherwise."""
    row = StudyRow("s", tmp_path, "p", report="long", summary="short")
    assert report_of(row, CLIP) == "short"
    assert report_of(row, replace(CLIP, summaries=False)) == "long"


def test_every_process_gets_its_own_studies() -> None:
    """Together they are the epoch; the same step gives the same studies."""
    picks = [loop.epochs(16, 4, 1, replace(PLACE, rank=rank, world=2)) for rank in range(2)]
    seen = sorted(i for step in range(2) for of in picks for i in of(step))
    assert seen == list(range(16))
    assert picks[0](0) == loop.epochs(16, 4, 1, replace(PLACE, rank=0, world=2))(0)
    assert picks[0](0) != picks[0](2)


def test_codebooks_of_a_run_alone_are_left_alone() -> None:
    """The joined sums of one process are its own: the published rule to the last digit."""
    torch.manual_seed(0)
    from inference.prima.vqvae_config import read_tokenizer_config

    book = Codebook(read_tokenizer_config(TOKENIZER)).train()
    book(torch.randn(4, 2, 2, 8, 8))
    assert float(book.ema_cluster_size.sum()) == pytest.approx(0.5 * 4 * 128)


class Shortener:
    """A language model that answers in form, or not."""

    model = "fake"

    def __init__(self, *answers: str | Exception) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    def answer(self, messages: Sequence[Mapping[str, str]], form: Mapping[str, Any]) -> str:
        """The next of its answers."""
        self.asked.append(messages[-1]["content"])
        found = self._answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def test_summaries_go_on_where_they_stopped(tmp_path: Path) -> None:
    """Each report is asked for once, identifiers removed; a refused one keeps its report."""
    table = [StudyRow(f"s{n}", tmp_path, "p", report=f"Mass {n}. MRN: 1234567") for n in range(3)]
    good = '{"findings": ["A  mass.", "Edema."]}'
    client = Shortener(good, DraftError("busy"), good)
    done = summarise(table, client, tmp_path / "kept.jsonl")
    again = summarise(table, Shortener('{"findings": ["Late."]}'), tmp_path / "kept.jsonl")

    assert [row.summary for row in done] == ["1. A mass.\n2. Edema.", "", "1. A mass.\n2. Edema."]
    assert not any("1234567" in text for text in client.asked)
    assert [row.summary for row in again][1] == "1. Late."
    write_table(tmp_path / "t.csv", again)
    assert [row.summary for row in read_table(tmp_path / "t.csv")] == [r.summary for r in again]


def test_reports_do_not_leave_the_house(tmp_path: Path) -> None:
    """A server outside is refused before anything is sent."""
    write_table(tmp_path / "t.csv", rows(["s0"], tmp_path))
    options = ["--endpoint", "http://192.0.2.1:8000", "--model", "m"]
    arguments = ["train", "prima-summaries", str(tmp_path / "t.csv"), str(tmp_path / "o.csv")]
    refused = CliRunner().invoke(app, [*arguments, *options])
    assert refused.exit_code == ExitCode.PEER, refused.output
    assert not (tmp_path / "o.csv").exists()
