"""Golden case p5: Prima's objectives, their values and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import golden

from training.prima import objectives

CASE = golden.case("p5_objectives")
META = golden.meta("p5_objectives")
DATA = golden.arrays(CASE / "data.npz")
CLOSE = golden.tolerance(META["tolerance"])


@pytest.mark.parametrize("name", META["clip"])
def test_clip_objective_is_the_references(name: str) -> None:
    """Both values; gradients of both sides and of the temperature are of the scaled one."""
    first, second = (torch.tensor(DATA[key], requires_grad=True) for key in ("d1", "d2"))
    temperature = torch.tensor([float(name[1:])], requires_grad=True)
    plain, scaled = objectives.clip_objective(first, second, temperature)
    scaled.backward()
    wanted = META["clip"][name]

    assert plain.item() == pytest.approx(wanted["loss_unscaled"], rel=1e-5)
    assert scaled.item() == pytest.approx(wanted["loss_temperature"], rel=1e-5)
    assert temperature.grad is not None
    assert temperature.grad.item() == pytest.approx(wanted["grad_temperature"], rel=1e-5)
    np.testing.assert_allclose(first.grad, DATA[f"clip_{name}_grad_d1"], **CLOSE)
    np.testing.assert_allclose(second.grad, DATA[f"clip_{name}_grad_d2"], **CLOSE)


@pytest.mark.parametrize("name", ["tau0.1", "tau0.5"])
def test_patient_discrimination_is_the_references(name: str) -> None:
    """Loss, score and gradients, where every study has two series or more."""
    vectors = torch.tensor(DATA["pat"] * np.float32(0.25), requires_grad=True)
    tau = torch.tensor([float(name[3:])], requires_grad=True)
    studies = torch.from_numpy(DATA["map"])
    loss = objectives.discrimination_objective(vectors, studies, tau)
    loss.backward()
    wanted = META["patdis"][name]

    assert loss.item() == pytest.approx(wanted["loss"], rel=1e-5)
    score = objectives.discrimination_score(vectors.detach(), studies, tau.detach())
    assert score.item() == pytest.approx(wanted["weighted_agg"], rel=1e-5)
    assert tau.grad is not None
    assert tau.grad.item() == pytest.approx(wanted["grad_tau"], rel=1e-5)
    np.testing.assert_allclose(vectors.grad, DATA[f"patdis_{name}_grad"], **CLOSE)


def test_a_study_of_one_series_is_masked_where_the_reference_gives_infinity() -> None:
    """Loss and gradients stay finite, and are those of the other rows."""
    assert META["patdis"]["with_singleton_study"]["loss"] == "inf"
    vectors = torch.tensor(DATA["pat"] * np.float32(0.25), requires_grad=True)
    studies = torch.from_numpy(DATA["map_with_singleton"])
    tau = torch.tensor([0.5], requires_grad=True)
    loss = objectives.discrimination_objective(vectors, studies, tau)
    loss.backward()

    assert torch.isfinite(loss)
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
    likeness = (vectors @ vectors.T / tau).detach().fill_diagonal_(-10).softmax(dim=1)
    same = (studies[:, None] == studies) & ~torch.eye(len(studies), dtype=torch.bool)
    others = [i for i in range(len(studies)) if same[i].any()]
    by_hand = -sum(likeness[i][same[i]].sum().log() / same[i].sum() for i in others)
    assert loss.item() == pytest.approx(float(by_hand), rel=1e-5)
    assert len(others) == len(studies) - 1


def test_nothing_to_tell_apart_costs_nothing() -> None:
    """A batch whose studies have one series each has a discrimination loss of 0."""
    vectors = torch.randn(3, 4, requires_grad=True)
    loss = objectives.discrimination_objective(vectors, torch.arange(3), torch.tensor([0.1]))
    loss.backward()
    assert loss.item() == 0
    assert vectors.grad is not None
    assert not vectors.grad.any()


def test_the_total_weighs_discrimination_by_three_percent() -> None:
    """Discrimination is worth 0.03 of what it says."""
    total = objectives.total_objective(torch.tensor(2.0), torch.tensor(10.0))
    assert total.item() == pytest.approx(2.3)
