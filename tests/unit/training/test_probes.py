"""Probes: learn from a frozen encoder, know what they do not know, end in a pack the agent runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories.training import TINY_ENCODER, token_cache

from inference import packs
from inference.engine import Engine
from inference.neurovfm.heads import build_head
from inference.neurovfm.model import build_encoder
from training.data.errors import DataError
from training.data.splits import Split
from training.data.table import StudyRow
from training.evaluation import calibration, metrics
from training.probes.fitting import fit, fold_temperatures
from training.probes.recipe import ProbeRun, train_pack
from training.probes.train import ProbeConfig, head_config
from training.probes.wording import read_wording, worded
from training.runtime import RunError

RUN = ProbeRun(
    "site-head",
    "1.0.0",
    "A test",
    ProbeConfig(hidden=16, epochs=8, batch=4, peak=5e-3),
    device="cpu",
    min_positives=2,
)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A fresh tiny encoder in the official layout."""
    torch.manual_seed(0)
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY_ENCODER))
    torch.save(
        {"state_dict": build_encoder(TINY_ENCODER).state_dict()}, folder / "pytorch_model.bin"
    )
    return folder


@pytest.mark.parametrize("pooler", ["classify_then_aggregate", "aggregate_then_classify"])
def test_a_probe_finds_what_its_tokens_show(pooler: str, encoder: Path, tmp_path: Path) -> None:
    """Bright middles in half the studies; the pack verifies and loads in the engine."""
    cache = token_cache(tmp_path / "cache", studies=16, bright=0.4)
    rows = [
        StudyRow(f"s{n}", tmp_path, f"p{n}", labels={"bleed": n // 2 % 2, "rare": int(n == 0)})
        for n in range(16)
    ]
    division = {
        row.study: Split.VALIDATION if n >= 10 else Split.TRAIN for n, row in enumerate(rows)
    }
    run = replace(RUN, probe=replace(RUN.probe, pooler=pooler))
    heads = train_pack(cache, rows, division, encoder, run, tmp_path / "pack")
    manifest = packs.load_manifest(tmp_path / "pack")

    assert [head.modality for head in heads] == ["CT", "MR"]
    assert all(head.fitted[0].auroc == 1.0 for head in heads)
    assert all("rare" in head.left_out for head in heads if head.modality == "MR")
    packs.verify(tmp_path / "pack")
    Engine([tmp_path / "pack"], device="cpu").pack("site-head")
    assert [label.id for label in manifest.heads[0].labels] == ["bleed"]


def test_folded_temperatures_divide_the_logits() -> None:
    """Both poolers, in their own parameters."""
    torch.manual_seed(1)
    tokens, edges = torch.randn(9, 48), torch.tensor([0, 4, 9])
    for pooler in ("classify_then_aggregate", "aggregate_then_classify"):
        head = build_head(head_config(ProbeConfig(pooler=pooler, hidden=8), 3), 48).eval()
        before = head(tokens, edges).logits
        fold_temperatures(head, [2.0, 1.0, 0.5])
        divided = before / torch.tensor([2.0, 1.0, 0.5])
        torch.testing.assert_close(head(tokens, edges).logits, divided)


def test_overconfident_logits_are_cooled() -> None:
    """The temperature that made them too sure is found again, and the error shrinks."""
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-honest))
    found = calibration.temperature(truth, honest * 3)

    assert found == pytest.approx(3.0, rel=0.1)
    errors = [
        calibration.expected_error(calibration.reliability(truth, 1 / (1 + np.exp(-logits))))
        for logits in (honest * 3, honest * 3 / found)
    ]
    assert errors[1] < errors[0] / 2


def test_metrics_are_those_of_scikit_learn() -> None:
    """AUROC and average precision, with ties."""
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    truth = rng.random(200) < 0.3
    score = np.round(rng.random(200) + truth * 0.3, 1)

    assert metrics.auroc(truth, score) == pytest.approx(sklearn.roc_auc_score(truth, score))
    assert metrics.auprc(truth, score) == pytest.approx(
        sklearn.average_precision_score(truth, score)
    )
    measured = metrics.with_interval(metrics.auroc, truth, score, resamples=200)
    assert measured is not None
    assert measured.low < measured.value < measured.high
    assert metrics.auroc(truth[:0], score[:0]) is None


def test_unknown_labels_take_no_part() -> None:
    """A column judged on the studies that know it."""
    logits = np.array([[3.0], [-3.0], [9.0], [2.0]])
    truth = np.array([[1], [0], [-1], [1]], dtype=np.int8)
    (found,) = fit(logits, truth)

    assert (found.positives, found.negatives, found.auroc) == (2, 1, 1.0)
    assert 0.1 < found.threshold < 0.99


def test_labels_take_their_words_from_site_then_published_then_themselves(tmp_path: Path) -> None:
    """A file of the site wins; a label nobody knows is routine and coded locally."""
    (tmp_path / "labels.toml").write_text(
        '[[labels]]\nid = "bleed"\ndisplay = "Bleed"\nacuity = "urgent"\n'
        'code = { value = "B1", scheme = "99SITE", meaning = "Bleed" }\n'
    )
    site = read_wording(tmp_path / "labels.toml")
    names = ("bleed", "acute_ischemic_stroke", "odd_thing")
    mine, known, other = worded(names, "CT", dict.fromkeys(names, 0.4), site)

    assert (mine.code.scheme, mine.acuity.value, mine.threshold) == ("99SITE", "urgent", 0.4)
    assert known.display == "Acute ischemic stroke"
    assert (other.code.scheme, other.display, other.acuity.value) == (
        "99LOCAL",
        "Odd thing",
        "routine",
    )
    (tmp_path / "labels.toml").write_text('[[labels]]\nid = "bleed"\ndisplay = "B"\n')
    with pytest.raises(DataError, match="'bleed'"):
        read_wording(tmp_path / "labels.toml")


def test_nothing_to_learn_is_said(encoder: Path, tmp_path: Path) -> None:
    """No positive study."""
    cache = token_cache(tmp_path / "cache", studies=2)
    rows = [StudyRow(f"s{n}", tmp_path, f"p{n}", labels={"bleed": 0}) for n in range(2)]
    with pytest.raises(RunError, match="nothing to train"):
        train_pack(
            cache, rows, {"s0": Split.TRAIN, "s1": Split.TRAIN}, encoder, RUN, tmp_path / "pack"
        )
