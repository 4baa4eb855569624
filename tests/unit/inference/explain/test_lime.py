"""LIME: the same numbers as captum's estimator, a planted truth found, an honest quality."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import LimeBase

from inference.errors import InputError
from inference.explain import lime
from inference.explain.options import PUBLISHED, ExplainOptions


def wavy(masks: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A model that is not linear: [M, F] -> [M, 1]."""
    there = masks.astype(np.float64)
    return np.sin(there @ np.arange(there.shape[1]) / 5)[:, None] + there[:, :1] * there[:, 1:2]


def test_coefficients_are_those_of_captum_on_the_same_samples():
    """LimeBase of captum with scikit-learn's ridge gives our coefficients, within float32."""
    masks = lime.draw_masks(4, 120, 9)
    fitted = lime.fit(masks, wavy(masks), lime.kernel_weights(masks))
    weights = {tuple(m): w for m, w in zip(masks.tolist(), lime.kernel_weights(masks), strict=True)}

    def samples(_inputs: Any, **_more: Any) -> Iterator[torch.Tensor]:
        yield from (torch.from_numpy(mask[None].astype(np.float32)) for mask in masks)

    def nearness(_original: Any, _sample: Any, mask: torch.Tensor, **_more: Any) -> float:
        return float(weights[tuple(mask[0].bool().tolist())])

    theirs = LimeBase(
        forward_func=lambda x: torch.from_numpy(wavy(x.numpy().astype(bool)))[:, 0],
        interpretable_model=SkLearnRidge(alpha=lime.RIDGE),
        similarity_func=nearness,
        perturb_func=samples,
        perturb_interpretable_space=True,
        from_interp_rep_transform=lambda mask, *_a, **_k: mask,
        to_interp_rep_transform=None,
    ).attribute(torch.ones(1, 9), n_samples=len(masks))
    np.testing.assert_allclose(fitted.coefficients[:, 0], theirs[0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", [12, 150])
def test_a_planted_truth_is_found_and_the_fit_says_how_well(features: int):
    """Three parts that matter are the three largest, also with more parts than samples."""
    truth = np.zeros(features)
    truth[[2, 5, 11]] = (3.0, -2.0, 1.5)
    masks = lime.draw_masks(1, 120, features)
    noise = np.random.default_rng(0).normal(size=(120, 1))
    outputs = np.concatenate([(masks @ truth)[:, None], noise], axis=1)
    fitted = lime.fit(masks, outputs, lime.kernel_weights(masks))
    assert set(np.argsort(-np.abs(fitted.coefficients[:, 0]))[:3]) == {2, 5, 11}
    assert fitted.held_out_r2[0] > 0.3
    assert fitted.held_out_r2[1] < 0
    assert fitted.r2[1] > 0  # why the other number is there
    if features == 12:
        assert fitted.r2[0] > 0.98


def test_held_out_quality_is_that_of_fits_without_the_sample():
    """The closed form agrees with leaving each sample out and fitting the others."""
    masks = lime.draw_masks(7, 60, 5)
    outputs, weights = wavy(masks), lime.kernel_weights(masks)
    missed = []
    for out in range(len(masks)):
        rest = np.arange(len(masks)) != out
        one = lime.fit(masks[rest], outputs[rest], weights[rest])
        missed.append(outputs[out] - one.intercept - masks[out] @ one.coefficients)
    mean = np.average(outputs, axis=0, weights=weights)
    expected = 1 - (weights @ np.square(missed)) / (weights @ (outputs - mean) ** 2)
    found = lime.fit(masks, outputs, weights).held_out_r2
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_an_output_that_never_changes_has_no_explanation():
    """Constant output: no coefficients, no quality, no division by zero."""
    masks = lime.draw_masks(1, 40, 6)
    fitted = lime.fit(masks, np.full((40, 1), 7.25), lime.kernel_weights(masks))
    assert not fitted.r2.any()
    assert not fitted.held_out_r2.any()
    np.testing.assert_allclose(fitted.coefficients, 0, atol=1e-12)


def test_samples_are_those_of_the_published_sampling():
    """Same seed, same masks, the whole first, none empty; the seed follows from its texts."""
    masks = lime.draw_masks(0, 50, 3)
    drawn = np.random.RandomState(0).randint(0, 2, 150).reshape(50, 3).astype(bool)
    same = drawn.any(axis=1)
    same[0] = False
    np.testing.assert_array_equal(masks[same], drawn[same])
    assert masks[0].all()
    assert masks.any(axis=1).all()
    assert lime.seed_of("study", "pack") == lime.seed_of("study", "pack")
    assert lime.seed_of("a", "bc") != lime.seed_of("ab", "c")


def test_nearer_samples_weigh_more():
    """The whole weighs 1; the kernel of half the parts is the published formula's value."""
    weights = lime.kernel_weights(np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]], bool))
    assert weights[0] == 1
    assert weights[0] > weights[1] > weights[2]
    distance = 1 - np.sqrt(0.5)
    assert weights[2] == pytest.approx(np.sqrt(np.exp(-(distance**2) / 0.25**2)))


def test_neighbors_share_a_group_and_equal_places_always_do():
    """Groups are blocks of the grid, no more than asked for; every token is in one."""
    places = np.stack(np.meshgrid(*(np.arange(n) for n in (10, 4, 4)), indexing="ij"), -1)
    places = np.concatenate([places.reshape(-1, 3), [[3, 1, 1]]])
    groups = lime.blocks(places, 40)
    assert set(groups) == set(range(groups.max() + 1))
    assert groups.max() < 40
    for number in range(groups.max() + 1):
        spread = np.ptp(places[groups == number], axis=0)
        assert spread.max() <= 3
    single = lime.blocks(places, len(places))
    assert single.max() + 1 == 160
    assert single[-1] == single[3 * 16 + 5]


def test_what_cannot_be_fitted_is_refused():
    """Counts that differ, numbers that are none, nothing to sample."""
    masks = lime.draw_masks(1, 10, 3)
    with pytest.raises(InputError, match="as many"):
        lime.fit(masks, np.zeros((9, 1)), np.ones(10))
    with pytest.raises(InputError, match="numbers"):
        lime.fit(masks, np.full((10, 1), np.nan), np.ones(10))
    with pytest.raises(InputError, match="1 or more"):
        lime.draw_masks(1, 0, 3)


def test_the_budget_bounds_the_groups_unless_published():
    """Half as many groups as samples; every token for itself in the published sampling."""
    assert ExplainOptions(samples=200).features(900) == 100
    assert ExplainOptions(samples=200).features(30) == 30
    assert PUBLISHED.features(900) == 900
