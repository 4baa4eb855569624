"""Promises of the demo pack's recipe: token truth, loss, quick build, and the committed pack."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import packs
from training.demo_pack import cache, export, metrics, network, observe, recipe
from training.demo_pack.batches import Augmentation, make_batch
from training.demo_pack.cache import CachedStudy
from training.demo_pack.cases import Split, draw_cases
from training.demo_pack.labels import pack_labels
from training.demo_pack.train import Schedule, objective_of, train
from training.synthetic.labels import label_ids
from training.synthetic.study import SyntheticStudy, make_study

Maker = Callable[..., SyntheticStudy]

COMMITTED = Path(str(resources.files("inference"))) / "demo_pack"
FRESH_SEED = 977


@pytest.fixture(scope="module")
def cached(study: Maker) -> list[CachedStudy]:
    """One CT and one MR study with a hemorrhage, tokenized."""
    made = [study(modality, "intraparenchymal") for modality in ("CT", "MR")]
    return [cache.tokenize_study(s.series, s.modality, s.labels, s.modality) for s in made]


def test_tokens_know_their_share_of_the_mask(study: Maker, cached: list[CachedStudy]) -> None:
    """The shares of a series add up to the mask's volume, as far as its tokens are foreground."""
    for one, made in zip(cached, [study(m, "intraparenchymal") for m in ("CT", "MR")], strict=True):
        series = made.series[0]
        column = label_ids(made.modality).index("intraparenchymal_hemorrhage")
        first = one.shares[: one.lengths[0], column]
        volume_mm3 = series.masks["intraparenchymal_hemorrhage"].sum() * abs(
            np.linalg.det(series.affine[:3, :3])
        )

        assert first.sum() / 255 * cache.TOKEN_MM3 == pytest.approx(volume_mm3, rel=0.05)


def test_windows_of_a_ct_share_their_truth(cached: list[CachedStudy]) -> None:
    """Three windows of one volume show the same voxels."""
    ct = cached[0]
    parts = np.split(ct.shares, ct.lengths.cumsum()[:-1])

    assert len(parts) == 3
    assert all(np.array_equal(part, parts[0]) for part in parts)


def test_mirrored_tokens_lie_on_the_other_side(cached: list[CachedStudy]) -> None:
    """Flipping twice gives the tokens back; once, columns count from the other end."""
    plain = make_batch([cached[0]])
    flipped = make_batch([cached[0]], Augmentation(mirror=1.0))

    assert torch.equal(plain.coords[:, :2], flipped.coords[:, :2])
    assert torch.equal(
        plain.coords[: cached[0].lengths[0], 2],
        int(cached[0].side[0]) - 1 - flipped.coords[: cached[0].lengths[0], 2],
    )
    assert torch.equal(
        plain.tokens.reshape(-1, 4, 16, 16), flipped.tokens.reshape(-1, 4, 16, 16).flip(-1)
    )


def test_the_objective_prefers_the_truth(cached: list[CachedStudy]) -> None:
    """A model that is nudged along the gradient has a lower loss on the same batch."""
    model = network.build_model(0)
    batch = make_batch([cached[0]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = objective_of(model, batch).total
    for _ in range(3):
        optimizer.zero_grad()
        objective_of(model, batch).total.backward()
        optimizer.step()

    assert objective_of(model, batch).total < before


def test_training_is_a_function_of_its_seed(cached: list[CachedStudy]) -> None:
    """Two runs on one machine give the same weights."""
    schedule = Schedule(steps=2, studies={"CT": 1, "MR": 1}, warm_up=1)
    first, second = (train(cached, [schedule], seed=5) for _ in range(2))

    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_splits_share_no_study() -> None:
    """No seed is used for two splits, and a larger draw only adds cases."""
    drawn = {split: draw_cases(1, "CT", split, 40) for split in Split}
    seeds = [case.seed for cases in drawn.values() for case in cases]

    assert len(set(seeds)) == len(seeds)
    assert draw_cases(1, "CT", Split.TRAIN, 60)[:40] == drawn[Split.TRAIN]


def test_auroc_counts_pairs_in_order() -> None:
    """One swapped pair of four is three quarters; ties count half."""
    truth = np.array([False, True, False, True])

    assert metrics.auroc(truth, np.array([0.1, 0.4, 0.5, 0.9])) == pytest.approx(0.75)
    assert metrics.auroc(truth, np.array([0.5, 0.5, 0.5, 0.5])) == pytest.approx(0.5)


def test_the_cut_separates_what_can_be_separated() -> None:
    """Between the highest negative and the lowest positive."""
    truth = np.array([False, False, True, True])

    assert 0.3 < metrics.operating_cut(truth, np.array([0.1, 0.3, 0.6, 0.8])) < 0.6


def test_every_label_has_wording_urgency_and_a_short_code() -> None:
    """Code values fit the 16 characters of Code Value (0008,0100); only atrophy is diffuse."""
    for modality in network.MODALITIES:
        labels = pack_labels(modality, {})

        assert [label.id for label in labels] == list(label_ids(modality))
        assert all(len(label.code.value) <= 16 for label in labels)
        assert [x.id for x in labels if not x.localized] == ["cerebral_atrophy"]


@pytest.mark.slow
def test_quick_recipe_makes_a_pack_that_loads(tmp_path: Path) -> None:
    """`--quick` runs every part of the recipe and ends in a pack with a card."""
    plan = recipe.Plan(
        counts={split: {"CT": 1, "MR": 1} for split in Split},
        stages=(Schedule(steps=1, studies={"CT": 1, "MR": 1}, warm_up=1),),
        matrix=64,
    )
    made = recipe.build(tmp_path / "pack", 3, plan, tmp_path / "work", workers=1)
    manifest = packs.load_manifest(tmp_path / "pack")

    packs.verify(tmp_path / "pack")
    assert manifest.demonstration
    assert manifest.research_only
    assert {"card.json", "card.md"} <= {file.path for file in manifest.files}
    assert made["demonstration"] is True
    assert "Not for clinical use" in (tmp_path / "pack" / "card.md").read_text()


def test_committed_pack_is_whole_small_and_says_what_it_is() -> None:
    """The pack that ships verifies, stays under 12 MB and is marked as a demonstration."""
    packs.verify(COMMITTED)
    manifest = packs.load_manifest(COMMITTED)

    assert sum(file.size_bytes for file in manifest.files) <= 12_000_000
    assert manifest.demonstration
    assert manifest.research_only
    assert "Not for clinical use" in manifest.notice
    assert (manifest.name, manifest.version) == (export.NAME, export.VERSION)


def test_committed_card_meets_the_targets_and_is_the_documented_one() -> None:
    """Mean AUROC at least 0.95, pointing at least 0.8; docs hold the same text."""
    made = json.loads((COMMITTED / "card.json").read_text())
    docs = COMMITTED.parent.parent / "docs" / "model-card-demo.md"

    assert made["summary"]["mean_auroc"] >= 0.95
    assert made["summary"]["mean_pointing"] >= 0.8
    assert docs.read_text() == (COMMITTED / "card.md").read_text()


@pytest.mark.slow
def test_committed_pack_meets_its_card_on_fresh_studies() -> None:
    """On seeds that nobody used, findings and places are about as good as on the card."""
    cases = [
        case
        for modality in network.MODALITIES
        for case in draw_cases(FRESH_SEED, modality, Split.TEST, 3)
    ]
    seen = observe.observe(COMMITTED, cases, workers=2)
    manifest = packs.load_manifest(COMMITTED)
    cuts = {
        (head.modality, label.id): label.threshold
        for head in manifest.heads
        for label in head.labels
    }
    right = [
        (one.probability[label] > cuts[one.modality, label]) == true
        for one in seen
        for label, true in one.truth.items()
    ]
    places = [p for one in seen for p in one.places.values() if p is not None]

    assert np.mean(right) >= 0.85
    assert np.mean([place.near for place in places]) >= 0.6


def test_dicom_files_give_the_tokens_the_model_was_trained_on(tmp_path: Path) -> None:
    """No skew between training and use: reading the files back gives the cached tokens."""
    from inference.neurovfm.preprocess import preprocess_volume
    from inference.study import SeriesInput
    from inference.volumes import read_series
    from inference.volumes.model_grid import model_grid
    from training.synthetic.dicom import write_dicom

    made = make_study(8, "CT", ["mass"], matrix=64)
    files = tuple(write_dicom(made, tmp_path, extras=False))
    (volume,) = read_series(SeriesInput("1", "CT", "", files), modality="CT").volumes
    grid = model_grid(volume)
    served = preprocess_volume(grid.array, grid.affine, "CT", spacing_mm=grid.spacing_mm)
    cached = cache.tokenize_study(made.series, "CT", made.labels)

    assert np.array_equal(np.concatenate([p.coords for p in served.series]), cached.coords)
    tokens = np.concatenate([p.tokens for p in served.series])
    # One HU is 0.0125 of the narrowest window: decimal strings in the files move a voxel's edge.
    skew = np.abs(tokens - cached.tokens / 255)
    assert skew.max() < 0.03
    assert skew.mean() < 0.002
