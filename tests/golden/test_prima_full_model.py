"""Golden case p4: every published layout is read safely and answers as the reference."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import golden

from inference.manifest import HeadKind
from inference.prima import loading, official
from inference.prima.config import Components, read_heads
from inference.prima.heads import StackedHeads
from inference.prima.model import EncodedSeries, HeadReader, PrimaModel

CASE = golden.case("p4_full_model")
P3 = golden.case("p3_hiervit")
VARIANTS = ("complete_visual_model_priority3", "current_repo_paths", "main_dataparallel")
AXES = (0, 1, 0, 0, 2)
CLOSE = {"rtol": 1e-4, "atol": 5e-5}


def need(path: Path) -> Path:
    """A golden file; the committed subset does not hold all of them."""
    if not path.exists():
        pytest.skip(f"{path.name} is not in the committed subset")
    return path


def study() -> list[EncodedSeries]:
    """The golden study's kept tokens; a token's row begins with its latent, thin axis first."""
    rows, given = golden.arrays(P3 / "visual_input.npz"), golden.arrays(P3 / "data.npz")
    names = golden.meta("p3_hiervit")["series_names"]
    found = []
    for number, axis in enumerate(AXES):
        latents = torch.from_numpy(rows[f"visual_{number}"][:, :256]).view(-1, 2, 2, 8, 8)
        coords = torch.from_numpy(given[f"coords_{number}"])
        latents = latents.transpose(2, 2 + axis)
        found.append(EncodedSeries(latents, coords, axis, names[number]))
    return found


def answer(model: official.OfficialModel) -> tuple[torch.Tensor, np.ndarray]:
    """Study embedding, and scores of diagnoses, referrals and priority side by side."""
    assert model.priority is not None
    readers = {}
    for kind, heads in (
        (HeadKind.DIAGNOSES, model.diagnoses),
        (HeadKind.REFERRAL, model.referrals),
        (HeadKind.PRIORITY, (model.priority,)),
    ):
        indices = () if kind is HeadKind.PRIORITY else tuple(head.index for head in heads)
        readers[kind] = HeadReader(StackedHeads(loading.stacked(heads, kind)), indices)
    visual = loading.build_visual(model.visual, model.counts, "p4")
    prima = PrimaModel(visual, readers)
    vectors = prima.encode_all(study())
    embedding = prima.encode_study(vectors, golden.meta("p3_hiervit")["study_description"])
    out = prima.heads(embedding)
    assert out.diagnoses is not None
    assert out.referral is not None
    assert out.priority is not None
    thresholds = [*loading.thresholds(model.diagnoses).values()]
    scores = out.diagnoses - torch.tensor(thresholds)
    referrals = out.referral - torch.tensor([*loading.thresholds(model.referrals).values()])
    return embedding, torch.cat((scores, referrals, out.priority)).numpy()


def test_the_full_checkpoint_answers_as_the_reference():
    """Embedding, four diagnoses, two referrals and four priority levels of the golden study."""
    expected = golden.meta("p4_full_model")["predictions"]
    with ExitStack() as files:
        model = official.open_full(need(CASE / "primafullmodel107.pt"), files)
        embedding, scores = answer(model)
        assert [head.name for head in model.diagnoses] == list(expected["diagnosis"])
        assert model.left_out == ("text tower",)
    np.testing.assert_allclose(embedding.numpy(), expected["clip_emb"][0], **CLOSE)
    values = [
        v[0] for kind in ("diagnosis", "referral", "priority") for v in expected[kind].values()
    ]
    np.testing.assert_allclose(scores, values, **CLOSE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_module_layout_answers_as_the_reference(variant: str):
    """Three sets of module paths, one in a wrapper for several GPUs, one with three levels."""
    path = need(CASE / "pickle_variants" / f"small_{variant}.pt")
    with ExitStack() as files:
        _, scores = answer(official.open_full(path, files))
    expected = golden.arrays(CASE / "data.npz")[f"variant_small_{variant}"]
    np.testing.assert_allclose(scores, expected, **CLOSE)


def test_a_model_in_parts_answers_as_the_reference():
    """CLIP checkpoint and head files, which the reference itself fails to load."""
    folder = need(CASE / "components_small" / "clip.pt").parent
    parts = Components(
        folder / "clip.pt",
        read_heads(folder / "diagnosis_heads.json"),
        read_heads(folder / "referral_heads.json"),
        folder / "priority_head.pt",
    )
    with ExitStack() as files:
        _, scores = answer(official.open_components(parts, files))
    expected = golden.arrays(CASE / "data.npz")["components_small"]
    np.testing.assert_allclose(scores, expected, **CLOSE)
