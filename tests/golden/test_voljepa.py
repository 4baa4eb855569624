"""Golden case n5: Vol-JEPA's masks, schedules, features, gradients and first three steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from factories import golden

from inference.neurovfm.tokens import Window, normalise
from training.voljepa.masks import DEGENERATE, Grid, draw_masks, read_mask_config
from training.voljepa.network import JepaBatch, PredictorConfig, VolJepa
from training.voljepa.schedules import CosineWarmup, Momentum
from training.voljepa.steps import JepaTrainer, make_optimizer

CASE = golden.case("n5_voljepa")
META = golden.meta("n5_voljepa")
VARIANTS = META["masks"]["variants"]
WINDOWS = [
    next((w for w in Window if w.value in item["path"]), Window.MRI) for item in META["items"]
]
TRAINING = META["config"]["training_params"]
STEPS = TRAINING["num_it_per_ep"] * TRAINING["num_ep_total"]
whole = pytest.mark.skipif(
    not (CASE / "init.ckpt").is_file(), reason="the compact golden set holds no n5 checkpoint"
)


@pytest.mark.parametrize("name", VARIANTS)
def test_masks_are_the_references(name: str) -> None:
    """Context and targets of four calls in a row, from the same random streams."""
    facts = VARIANTS[name]
    source = "items.npz" if facts["batch"] == "items.npz" else "masks_default_uint8.npz"
    given, wanted = golden.arrays(CASE / source), golden.arrays(CASE / f"masks_{name}.npz")
    grids = [
        Grid(tuple(given[f"size{i}"].tolist()), given[f"filtered{i}"] == 0, mode)
        for i, mode in enumerate(facts["modes"])
    ]
    config = read_mask_config(facts["cfg"], reference_uint8=facts["filtered_dtype"] == "uint8")
    places = torch.Generator().manual_seed(facts["seed"])
    for call in range(facts["calls"]):
        masks = [mask or DEGENERATE for mask in draw_masks(grids, config, call, places)]
        starts = np.cumsum([0, *(len(grid.foreground) for grid in grids)])
        part = [m.taking_part + start for m, start in zip(masks, starts, strict=False)]
        offsets = np.cumsum([0, *(len(one) for one in part)])
        pairs = list(zip(masks, offsets, strict=False))
        context = [np.searchsorted(m.taking_part, m.context) + at for m, at in pairs]
        targets = [np.searchsorted(m.taking_part, m.targets) + at for m, at in pairs]

        assert np.array_equal(np.concatenate(part), wanted[f"pred_init{call}"])
        assert np.array_equal(np.concatenate(context), wanted[f"enc{call}"])
        assert np.array_equal(np.concatenate(targets), wanted[f"pred{call}"])


def test_schedules_are_the_references() -> None:
    """Learning rates of pretraining and tuning, and the teacher's momentum, at every step."""
    wanted = golden.arrays(CASE / "schedules.npz")
    pretraining, momentum = _pretraining_schedules()
    tuning = CosineWarmup(2e-5, 2e-6, 2e-9, steps=200, warm_up=0.03, cycles=1.0)

    for rate, name in (
        (pretraining, "pretrain_lr"),
        (momentum, "momentum"),
        (tuning, "sft_lr"),
    ):
        made = [rate.at(step) for step in range(len(wanted[name]))]
        assert made == pytest.approx(wanted[name].tolist(), rel=1e-9, abs=0)


@whole
def test_one_forward_and_backward_give_the_references_numbers() -> None:
    """Targets, predictions, loss and the norm of every gradient."""
    model, wanted = _model(), golden.arrays(CASE / "step0.npz")
    batch = _batch(wanted, init="init", context="enc", targets="pred")
    loss = model.loss(batch)
    loss.backward()
    close = golden.tolerance(META["tolerance"]["features/loss"])

    np.testing.assert_allclose(model.targets(batch), wanted["teacher_targets_layernormed"], **close)
    np.testing.assert_allclose(model.predict(batch).detach(), wanted["predictions"], **close)
    assert loss.item() == pytest.approx(META["step0"]["loss_smooth_l1"], rel=1e-4)
    norms = {n: float(p.grad.norm()) for n, p in model.named_parameters() if p.grad is not None}
    assert norms == pytest.approx(META["step0"]["grad_norms"], rel=1e-4, abs=1e-6)


@whole
def test_three_steps_end_in_the_references_weights() -> None:
    """Order of teacher, student, clipping, optimizer and schedules is the published one."""
    model = _model()
    trainer = JepaTrainer(model, make_optimizer(model), *_pretraining_schedules())
    masks = golden.arrays(CASE / "masks_real_items.npz")
    for call, record in enumerate(META["trainer_3_steps"]["records"]):
        named = {key[:-1]: value for key, value in masks.items() if key.endswith(str(call))}
        report = trainer.advance(
            _batch(named, init="pred_init", context="enc", targets="pred", tail="")
        )

        assert report.loss == pytest.approx(record["loss"], rel=1e-4)
        assert report.learning_rate == pytest.approx(record["lr"], rel=1e-9)
    after = model.state_dict()
    for name, value in golden.arrays(CASE / "after_3_steps.npz").items():
        close = golden.tolerance(META["tolerance"]["after_3_steps"])
        np.testing.assert_allclose(after[name.removeprefix("model.")], value, **close)


def _pretraining_schedules() -> tuple[CosineWarmup, Momentum]:
    """As the case's own configuration says."""
    rates, shape = META["config"]["opt_cf"]["params"], META["config"]["schd_cf"]["params"]
    rate = CosineWarmup(
        peak=rates["lr"],
        start=rates["start_lr"],
        final=rates["final_lr"],
        steps=STEPS,
        warm_up=shape["num_warmup_steps"],
        cycles=shape["num_cycles"],
        stretch=shape["ipe_scale"],
    )
    first, last = META["config"]["ema_beta"]
    return rate, Momentum(STEPS, first, last, stretch=shape["ipe_scale"])


def _model() -> VolJepa:
    config = META["config"]
    predictor = config["predictor_cf"]
    sizes = {k: predictor[k] for k in ("dim", "depth", "num_heads", "dim_head")}
    model = VolJepa(config["vision_backbone_cf"], PredictorConfig(**sizes))
    stored = torch.load(CASE / "init.ckpt", weights_only=True)["state_dict"]
    weights = {k.removeprefix("model."): v.float() for k, v in stored.items() if "model." in k}
    model.load_state_dict(weights)
    return model.train()


def _batch(
    given: dict[str, Any], *, init: str, context: str, targets: str, tail: str = "_idx"
) -> JepaBatch:
    items = golden.arrays(CASE / "items.npz")
    tokens = [normalise(torch.from_numpy(items[f"u8{i}"]) / 255, w) for i, w in enumerate(WINDOWS)]
    coords = [torch.from_numpy(items[f"coords{i}"]).long() for i in range(len(WINDOWS))]

    def read(name: str) -> torch.Tensor:
        return torch.from_numpy(given[name].astype(np.int64))

    rows = read(f"{init}{tail}")
    return JepaBatch(
        tokens=torch.cat(tokens)[rows],
        coords=torch.cat(coords)[rows],
        cu_seqlens=read(f"{init}_cu"),
        context=read(f"{context}{tail}"),
        context_cu=read(f"{context}_cu"),
        targets=read(f"{targets}{tail}"),
        targets_cu=read(f"{targets}_cu"),
    )
