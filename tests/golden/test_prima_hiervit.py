"""Golden case p3: the study model gives the reference's numbers at every stage."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import golden

from inference.checkpoints import StateDict, read_state_dict
from inference.layers.positions import encode_positions_3d
from inference.prima import official
from inference.prima.hiervit import HierVit
from inference.prima.loading import build_visual
from inference.prima.names import char_codes
from inference.prima.token_rows import raster_coords, token_rows

CASE = golden.case("p3_hiervit")
CHECKPOINT = golden.case("p4_full_model") / "primafullmodel107.pt"
CLOSE = {"rtol": 1e-4, "atol": 5e-5}
AXES = (0, 1, 0, 0, 2)
# The checkpoint has 13 MB; the committed subset tells the whole model from a smaller one (p4).
pytestmark = pytest.mark.skipif(
    not CHECKPOINT.is_file(), reason="the full checkpoint is not in the committed subset"
)

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def given() -> Arrays:
    """Inputs and answers of the reference."""
    return golden.arrays(CASE / "data.npz")


@pytest.fixture(scope="module")
def rows() -> list[torch.Tensor]:
    """Tokens of five series as the reference made them."""
    found = golden.arrays(CASE / "visual_input.npz")
    return [torch.from_numpy(found[f"visual_{i}"]) for i in range(5)]


@pytest.fixture(scope="module")
def checkpoint() -> official.OfficialModel:
    """The published layout, read safely."""
    with ExitStack() as files:
        return official.open_full(CHECKPOINT, files)


@pytest.fixture(scope="module")
def model(checkpoint: official.OfficialModel) -> HierVit:
    """The study model of the full checkpoint."""
    return build_visual(checkpoint.visual, checkpoint.counts, "p3")


def near(found: torch.Tensor, expected: np.ndarray) -> None:
    """Within the case's tolerance."""
    np.testing.assert_allclose(found.detach().numpy(), expected, **CLOSE)


def codes(given: Arrays, key: str) -> list[torch.Tensor]:
    """Rows of character codes."""
    return list(torch.from_numpy(given[key]).long())


@torch.inference_mode()
def test_every_stage_of_one_study_equals_the_references(
    given: Arrays, rows: list[torch.Tensor], model: HierVit
):
    """Names, description, series, study, CLIP output; the series in two passes."""
    names = model.name_rows(codes(given, "serienames")[0:1][0].unbind(0))
    assert names is not None
    assert model.studyencoder is not None
    descriptions = codes(given, "studydescription")
    near(names, given["serie_name_enc"])
    near(model.studyencoder(descriptions), given["study_desc_enc"])
    near(model.pool_series(rows, names), given["inner_pool"])
    vectors = model.encode_series(rows, names, budget=200)
    near(vectors, given["inner_out"])
    embedding = model.encode_studies([vectors], descriptions)
    near(embedding, given["pooled"])
    near(model.outerViT.mlp_head(embedding), given["head_out"])
    near(model.clip_vectors(embedding), given["clip_embedding_unit"])


@torch.inference_mode()
def test_two_studies_in_one_batch_equal_the_references(
    given: Arrays, rows: list[torch.Tensor], model: HierVit
):
    """Five and three series of other lengths: padding changes nothing."""
    both = [*rows, rows[4], rows[0][:30], rows[1][5:60]]
    first, second = torch.from_numpy(given["batch2_serienames"]).long()
    names = model.name_rows([*first, *second[:3]])
    pooled = model.pool_series(both, names)
    vectors = model.innerViT.mlp_head(pooled)
    order = [0, 5, 1, 6, 2, 7, 3, 4]  # the reference lists series by place, then by study
    near(vectors[order], given["batch2_series_emb"])
    near(model.discriminate(pooled)[order], given["batch2_patdis_series"])
    studies = model.encode_studies([vectors[:5], vectors[5:]], codes(given, "batch2_studydesc"))
    near(studies, given["batch2_pooled"])
    near(model.outerViT.mlp_head(studies), given["batch2_head"])


@torch.inference_mode()
def test_a_wider_model_fills_its_tokens_with_zeros(
    given: Arrays, rows: list[torch.Tensor], checkpoint: official.OfficialModel
):
    """Inner width 292 for tokens of 289 columns, as the repository's configuration trains."""
    shared: StateDict = {
        key: value
        for key, value in checkpoint.visual.items()
        if not key.startswith(("innerViT.", "patdisnet."))
    }
    state = {**shared, **read_state_dict(CASE / "inner292_overrides.pt")}
    model = build_visual(state, replace(checkpoint.counts), "292")
    names = model.name_rows(list(codes(given, "serienames")[0]))
    vectors = model.encode_series(rows, names)
    embedding = model.encode_studies([vectors], codes(given, "studydescription"))
    near(embedding, given["pooled_inner292"])


@pytest.mark.parametrize("series", range(5))
def test_token_rows_equal_the_references_exactly(
    given: Arrays, rows: list[torch.Tensor], series: int
):
    """Latent, place and axis of every kept token, from the tokenizer's output and coordinates."""
    latents = golden.arrays(golden.case("p4_full_model") / "data.npz")[f"embeddings_{series}"]
    places = {tuple(c): n for n, c in enumerate(raster_coords(len(latents), AXES[series]).tolist())}
    coords = torch.from_numpy(given[f"coords_{series}"])
    kept = [places[tuple(c)] for c in coords.tolist()]
    found = token_rows(torch.from_numpy(latents[kept]), coords, AXES[series])
    assert torch.equal(found, rows[series])


def test_place_codes_and_names_equal_the_references(given: Arrays):
    """Rows of the 120 MB table, computed; codes of the series' names."""
    places = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 2, 3], [99, 99, 99]])
    near(encode_positions_3d(places, 30), given["p_enc_rows"])
    for name, expected in zip(
        golden.meta("p3_hiervit")["series_names"], given["serienames"][0], strict=True
    ):
        found = char_codes(name)
        assert found.tolist() == expected[: len(found)].tolist()
        assert not expected[len(found) :].any()
