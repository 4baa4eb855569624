"""The published files become a pack with the same numbers; what does not fit is named."""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import prima
from torch import nn

from inference import packs
from inference.errors import ConfigError, PackError, WeightsError
from inference.findings import DIAGNOSIS, REFERRAL
from inference.packs import HeadKind
from inference.prima import analyse, loading
from inference.prima.config import Components, read_heads
from inference.prima.hiervit import HierVit
from inference.prima.importing import Identity, Sources, doubts, import_official
from inference.prima.model import EncodedSeries
from inference.prima.token_rows import raster_coords

CPU = torch.device("cpu")
IDENTITY = Identity("prima", "1.0.0", created=dt.date(2026, 11, 23))
Make = tuple[HierVit, nn.Module, Sources]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Our networks, the official module tree around them, and its files."""
    folder = tmp_path_factory.mktemp("official")
    visual = prima.hiervit()
    tree = prima.full_model(visual)
    file = prima.save(tree, folder / "primafullmodel107.pt")
    return visual, tree, Sources(file, *prima.tokenizer_files(folder))


def one_series() -> EncodedSeries:
    """Encoded tokens."""
    torch.manual_seed(8)
    return EncodedSeries(torch.randn(10, 2, 2, 8, 8), raster_coords(64, 0)[:10], 0, "AX_T2")


def study_embedding(model: loading.PrimaModel) -> torch.Tensor:
    """Of one series."""
    return model.encode_study(model.encode_all([one_series()]), "MR")


def test_a_pack_answers_as_the_official_modules(made: Make, tmp_path: Path):
    """Embedding and every head's output, thresholds, levels and codes survive the import."""
    visual, tree, sources = made
    manifest = import_official(sources, tmp_path / "pack", IDENTITY)
    packs.verify(tmp_path / "pack")
    pack = loading.load(tmp_path / "pack", manifest, CPU)
    embedding = study_embedding(pack.model)
    torch.testing.assert_close(embedding, study_embedding(loading.PrimaModel(visual, {})))
    outputs = pack.model.heads(embedding)
    findings = analyse.findings(pack, outputs)
    official = {**tree.diagnosisheads, **tree.referralheads}
    assert [f.label for f in findings] == list(official)
    for finding in findings:
        network, index = official[finding.label]
        raw = network(embedding)[index]
        assert finding.score == pytest.approx(raw.item() - network.thresh, abs=1e-5)
        assert finding.probability == pytest.approx(raw.sigmoid().item(), abs=1e-6)
        assert finding.present == (finding.score >= 0)
        assert finding.present == (finding.probability >= finding.threshold)
    assert [f.kind for f in findings] == [DIAGNOSIS, DIAGNOSIS, REFERRAL]
    priority = analyse.model_priority(pack, outputs)
    assert priority is not None
    assert priority.levels == ("none", "low", "medium", "high")
    expected = tree.priorityhead(embedding).tolist()
    assert priority.scores == pytest.approx(expected, abs=1e-5)


def test_the_pack_says_where_it_comes_from_and_leaves_the_text_tower_out(
    made: Make, tmp_path: Path
):
    """Licence, notice and origin are in the manifest; the files hold no tensor of the text side."""
    manifest = import_official(made[2], tmp_path / "pack", IDENTITY)
    assert (manifest.licence, manifest.research_only) == ("CC-BY-NC-SA-4.0", True)
    assert "primafullmodel107.pt" in manifest.origin
    assert "text tower" in manifest.origin
    stored = loading.read_state_dict(tmp_path / "pack" / manifest.encoder.weights)
    assert set(stored) == set(made[0].state_dict())


@pytest.mark.parametrize(("layout", "levels"), [("main", 3), ("flat", 3)])
def test_every_published_layout_is_read(made: Make, tmp_path: Path, layout: str, levels: int):
    """Other module paths, a wrapper for several GPUs, and a three-level priority head."""
    tree = nn.DataParallel(prima.full_model(made[0], levels=levels, layout=layout))
    file = prima.save(tree, tmp_path / "model.pt")
    manifest = import_official(replace(made[2], model=file), tmp_path / "pack", IDENTITY)
    head = manifest.head_for("MR", HeadKind.PRIORITY)
    assert head is not None
    assert head.levels == ("none", "low", "high")


def test_a_model_in_parts_gives_the_same_pack(made: Make, tmp_path: Path):
    """CLIP checkpoint and head files, one of them a bare state_dict."""
    _, tree, sources = made
    clip = prima.save(nn.DataParallel(tree.clipmodel), tmp_path / "clip.pt")
    for name, (network, _) in {**tree.diagnosisheads, **tree.referralheads}.items():
        torch.save(network, tmp_path / f"{name}.pt")
    torch.save(tree.priorityhead.state_dict(), tmp_path / "priority.pt")
    files = {}
    for kind, table in (("d", prima.DIAGNOSES), ("r", prima.REFERRALS)):
        files[kind] = heads_json(tmp_path / f"{kind}.json", table)
    parts = Components(
        clip, read_heads(files["d"]), read_heads(files["r"]), tmp_path / "priority.pt"
    )
    whole = import_official(sources, tmp_path / "whole", IDENTITY)
    again = import_official(replace(sources, model=parts), tmp_path / "parts", IDENTITY)
    assert again.heads == whole.heads
    hashes = [{file.path: file.sha256 for file in m.files} for m in (whole, again)]
    assert hashes[0] == hashes[1]


def heads_json(path: Path, table: dict[str, tuple[int, float]], shift: float = 0.0) -> Path:
    """An official heads JSON."""
    rows = {n: ["labels.txt", [[f"{n}.pt", i, t + shift]]] for n, (i, t) in table.items()}
    path.write_text(json.dumps(rows))
    return path


def test_thresholds_of_the_json_override_the_pickled_ones(made: Make, tmp_path: Path):
    """The JSON wins for the heads it names; unknown heads and other outputs are refused."""
    given = heads_json(tmp_path / "d.json", {"something_new": (0, 0.3)}, shift=0.5)
    sources = replace(made[2], diagnosis_heads=given)
    head = import_official(sources, tmp_path / "pack", IDENTITY).head_for("MR")
    assert head is not None
    found = {label.id: loading.logit(label.threshold) for label in head.labels}
    assert found == pytest.approx({"infectious_brain_abscess": -0.4, "something_new": 0.8})
    for table, message in (
        ({"stroke": (0, 0.0)}, "stroke: the checkpoint has no such head"),
        ({"something_new": (1, 0.0)}, "output 1, but the checkpoint says 0"),
    ):
        heads_json(given, table)
        with pytest.raises(WeightsError, match=message):
            import_official(sources, tmp_path / "other", IDENTITY)
    given.write_text('{"stroke": [["a", 0, 0.1], ["b", 1, 0.2]]}')
    with pytest.raises(ConfigError, match="stroke: expected"):
        import_official(sources, tmp_path / "other", IDENTITY)
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob(".other*"))


def test_an_old_file_raises_a_doubt(made: Make, tmp_path: Path):
    """A checkpoint last written before the priority head was corrected is warned of."""
    file = tmp_path / "model.pt"
    file.write_bytes(b"x")
    assert doubts(replace(made[2], model=file)) == ()
    day = dt.datetime(2026, 2, 18, tzinfo=dt.UTC).timestamp()
    os.utime(file, (day, day))
    (doubt,) = doubts(replace(made[2], model=file))
    assert "2026-02-19" in doubt


def test_what_does_not_fit_is_named(made: Make, tmp_path: Path):
    """A priority head of two levels, a head file as model, weights of another width."""
    two = prima.save(prima.full_model(made[0], levels=2), tmp_path / "two.pt")
    with pytest.raises(WeightsError, match="priority head: 2 outputs"):
        import_official(replace(made[2], model=two), tmp_path / "pack", IDENTITY)
    torch.save(prima.head(1), tmp_path / "head.pt")
    with pytest.raises(WeightsError, match="a Sequential, not the full model"):
        import_official(replace(made[2], model=tmp_path / "head.pt"), tmp_path / "pack", IDENTITY)
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="no module where one is expected"):
        import_official(replace(made[2], model=tmp_path / "state.pt"), tmp_path / "pack", IDENTITY)


def test_a_manifest_that_contradicts_its_weights_does_not_load(made: Make, tmp_path: Path):
    """Levels, indices, thresholds and order are checked against the tensors."""
    folder = tmp_path / "pack"
    manifest = import_official(made[2], folder, IDENTITY)
    diagnoses, referral, priority = manifest.heads
    first, *rest = diagnoses.labels

    def load(*heads: packs.Head) -> None:
        loading.load(folder, replace(manifest, heads=heads), CPU)

    with pytest.raises(PackError, match="4 outputs, the manifest lists 3 levels"):
        load(diagnoses, replace(priority, levels=("none", "low", "high")))
    with pytest.raises(PackError, match="index exceeds"):
        load(replace(diagnoses, labels=(replace(first, index=9), *rest)))
    with pytest.raises(PackError, match=r"inside 0\.\.1"):
        load(replace(diagnoses, labels=(replace(first, threshold=1.0), *rest)))
    with pytest.raises(PackError, match="index is missing"):
        load(replace(diagnoses, labels=(replace(first, index=None), *rest)))
    with pytest.raises(PackError, match="in their order"):
        load(replace(diagnoses, labels=(*rest, first)))
    with pytest.raises(PackError, match="no head of kind diagnoses"):
        load(referral)
    with pytest.raises(PackError, match=r"needs a \[tokenizer\]"):
        loading.load(folder, replace(manifest, tokenizer=None), CPU)
