"""Vol-JEPA's run: it learns, resumes bit by bit, spreads over processes and ends in an encoder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories.training import TINY_ENCODER, token_cache

from inference.neurovfm import load_encoder
from training import runtime
from training.data.sampling import Batching
from training.data.shards import Cache
from training.voljepa import monitor, recipe
from training.voljepa.masks import Grid, MaskConfig, draw_masks
from training.voljepa.network import PredictorConfig, VolJepa
from training.voljepa.recipe import PretrainConfig
from training.voljepa.steps import JepaTrainer, make_optimizer

TINY = PretrainConfig(
    encoder=TINY_ENCODER,
    predictor=PredictorConfig(32, 1, 2, 16),
    epochs=6,
    batching=Batching(series=3),
    peak=2e-3,
    start=1e-3,
    seed=4,
    save_every=5,
    device="cpu",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Six studies, CT and MR."""
    return token_cache(tmp_path_factory.mktemp("cache"))


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The exported encoder."""
    stored = torch.load(out / "encoder" / "pytorch_model.bin", weights_only=True)
    found: dict[str, torch.Tensor] = stored["state_dict"]
    return found


@pytest.mark.parametrize("shape", [(9, 14, 12), (2, 3, 3)])
def test_context_and_targets_divide_the_foreground(shape: tuple[int, int, int]) -> None:
    """Nothing is seen and predicted at once, nothing of the tissue is lost, both are used."""
    cells = np.argwhere(np.ones(shape, dtype=bool)) - np.array(shape) / 2
    grid = Grid(shape, np.linalg.norm(cells / shape, axis=1) < 0.55, "mri")
    drawn = [draw_masks([grid], MaskConfig(), call)[0] for call in range(20)]
    made = [mask for mask in drawn if mask is not None]

    assert made
    for mask in made:
        assert not set(mask.context) & set(mask.targets)
        assert np.array_equal(mask.taking_part, np.flatnonzero(grid.foreground))
        assert len(mask.context) <= grid.foreground.sum() / 2


def test_the_loss_falls_on_what_can_be_predicted(cache: Cache) -> None:
    """Thirty steps on one batch, the teacher held still."""
    torch.manual_seed(0)
    model = VolJepa(TINY_ENCODER, TINY.predictor).train()
    series = [s for study in cache.studies.values() for s in study.series][:3]
    batch = recipe.make_batch(cache, series, TINY, call=0)
    assert batch is not None
    still = replace_momentum()
    trainer = JepaTrainer(model, make_optimizer(model), constant_rate(), still)
    losses = [trainer.advance(batch).loss for _ in range(30)]

    assert losses[-1] < 0.6 * losses[0]


def test_a_collapsed_teacher_is_seen(cache: Cache) -> None:
    """Spread and rank of equal features are those of a point."""
    torch.manual_seed(0)
    model = VolJepa(TINY_ENCODER, TINY.predictor)
    series = [s for study in cache.studies.values() for s in study.series][:3]
    batch = recipe.make_batch(cache, series, TINY, call=0)
    assert batch is not None
    healthy = monitor.collapse(model, batch)
    torch.nn.init.zeros_(model.teacher.vision_encoder.norm.weight)
    broken = monitor.collapse(model, batch)

    assert healthy["feature_std"] > 0.1 > broken["feature_std"]
    assert healthy["feature_rank"] > 3 * broken["feature_rank"]


def test_a_stopped_run_ends_as_if_it_had_not_stopped(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at a checkpoint, resumed: the very same encoder, which the inference code loads."""
    studies = list(cache.studies.values())
    recipe.pretrain(cache, studies, TINY, tmp_path / "whole")
    stop_after(monkeypatch, steps=7)
    with pytest.raises(KeyboardInterrupt):
        recipe.pretrain(cache, studies, TINY, tmp_path / "stopped")
    monkeypatch.undo()
    folder = recipe.pretrain(cache, studies, TINY, tmp_path / "stopped")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")

    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    encoder, _ = load_encoder(str(folder))
    assert encoder is not None


def test_what_cannot_run_says_why(cache: Cache, tmp_path: Path) -> None:
    """No study, no such size, a damaged checkpoint."""
    with pytest.raises(runtime.RunError, match="no study"):
        recipe.pretrain(cache, [], TINY, tmp_path)
    with pytest.raises(runtime.RunError, match="size 'big' is unknown"):
        recipe.encoder_config(replace(TINY, encoder=None, size="big"))
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(runtime.RunError, match="damaged"):
        recipe.pretrain(cache, list(cache.studies.values()), TINY, tmp_path)


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "huge"])
def test_every_published_size_can_be_configured(size: str) -> None:
    """The official keys describe an encoder that builds, on no memory."""
    from inference.neurovfm.model import build_encoder

    with torch.device("meta"):
        built = build_encoder(recipe.encoder_config(replace(TINY, encoder=None, size=size)))
    assert sum(p.numel() for p in built.parameters()) > 4_000_000


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns_from_both_batches(
    how: str, cache: Cache, tmp_path: Path, repository: Path
) -> None:
    """One step on two gloo processes is a step on the mean of their losses."""
    script = repository / "tests" / "factories" / "inside" / "two_processes.py"
    run_both([str(script), str(cache.folder), str(tmp_path), how], repository)
    spread = torch.load(tmp_path / "weights.pt", weights_only=True)

    torch.manual_seed(0)
    model = VolJepa(TINY_ENCODER, TINY.predictor).train()
    series = [s for study in cache.studies.values() for s in study.series]
    batches = [recipe.make_batch(cache, series[i : i + 2], TINY, call=i) for i in (0, 2)]
    loss = sum(model.loss(batch) for batch in batches) / 2
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    assert spread["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(spread["gradients"][name], gradient, rtol=1e-4, atol=1e-6)


def run_both(command: list[str], repository: Path) -> None:
    """Two processes with what torchrun would tell them, on the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "PYTHONPATH": f"{repository}:{repository / 'tests'}",
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    running = [
        subprocess.Popen([sys.executable, *command], env={**shared, "RANK": str(rank)})
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()


def constant_rate():
    """A learning rate that stays."""
    from training.voljepa.schedules import CosineWarmup

    return CosineWarmup(3e-3, 3e-3, 3e-3, steps=30, warm_up=1)


def replace_momentum():
    """A teacher that stays as it is."""
    from training.voljepa.schedules import Momentum

    return Momentum(steps=30, start=1.0, end=1.0)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Interrupt the run in the middle of its n-th step, as Ctrl-C would."""
    whole = JepaTrainer.advance

    def advance(self: JepaTrainer, batch: object) -> object:
        if self.step == steps:
            raise KeyboardInterrupt
        return whole(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(JepaTrainer, "advance", advance)
