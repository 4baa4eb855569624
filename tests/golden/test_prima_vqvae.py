"""Golden case p2: the tokenizer gives the reference's latents, codes, voxels and training step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import golden

from inference.checkpoints import load_strictly, read_state_dict
from inference.neurovfm.weights import read_json
from inference.prima.vqvae import VQVAE, Tokenizer
from inference.prima.vqvae_config import read_tokenizer_config

CASE = golden.case("p2_vqvae")
pytestmark = pytest.mark.skipif(
    not CASE.is_dir(), reason="not in the committed subset; a test against MONAI stands for it"
)
SERIES = {"2_ax": 0, "3_cor": 1, "10_sag": 2}
Arrays = dict[str, np.ndarray]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def given():
    """Inputs and answers of the reference."""
    return golden.arrays(CASE / "data.npz")


def build() -> VQVAE:
    """The golden checkpoint, loaded strictly."""
    model = VQVAE(read_tokenizer_config(read_json(CASE / "config.json")))
    load_strictly(model, read_state_dict(CASE / "vqvae_model_step16799.pth"), "p2")
    return model.eval()


@pytest.fixture(scope="module")
def model():
    """One model for the tests that do not change it."""
    return build()


@pytest.mark.parametrize(("series", "axis"), SERIES.items())
def test_latents_equal_the_references_in_either_entry(
    given: Arrays, model: VQVAE, series: str, axis: int
):
    """Blocks with doubled slices, and the same slices once, give the reference's latents."""
    blocks = torch.from_numpy(given[f"{series}__input"])
    tokenizer = Tokenizer(model)
    expected = given[f"{series}__encode"]
    np.testing.assert_allclose(tokenizer.encode(blocks).numpy(), expected, **CLOSE)
    once = blocks[:, 0].index_select(axis + 1, torch.arange(0, 8, 2))
    np.testing.assert_allclose(tokenizer.encode_thin(once, axis).numpy(), expected, **CLOSE)


@pytest.mark.parametrize("series", SERIES)
@torch.inference_mode()
def test_codes_and_voxels_equal_the_references(given: Arrays, model: VQVAE, series: str):
    """Nearest codes wherever the margin is not a near-tie; voxels of the reference's codes."""
    blocks = torch.from_numpy(given[f"{series}__input"])
    codes = model.indices(blocks).numpy()
    clear = given[f"{series}__index_margin"] > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(codes[clear], given[f"{series}__indices"][clear])
    voxels = model.decode_indices(torch.from_numpy(given[f"{series}__indices"])).numpy()
    np.testing.assert_allclose(voxels, given[f"{series}__recon"], **CLOSE)
    loss = model(blocks)[1].item()
    assert loss == pytest.approx(float(given[f"{series}__quant_loss_eval"]), rel=1e-4)


def test_a_training_step_moves_the_codebook_as_the_reference(given: Arrays):
    """Losses, gradients and running means of one step in training mode."""
    expected = golden.meta("p2_vqvae")["train_step"]
    model = build().train()
    blocks = torch.from_numpy(given["2_ax__input"])
    voxels, loss = model(blocks)
    fit = torch.nn.functional.l1_loss(voxels, blocks)
    (fit + loss).backward()
    assert fit.item() == pytest.approx(expected["recons_l1"], rel=1e-5)
    assert loss.item() == pytest.approx(expected["quant_loss"], rel=1e-4)
    for name, norm in expected["grad_norms"].items():
        gradient = model.get_parameter(name).grad
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-3), name
    book = model.quantizer.quantizer
    assert book.embedding.weight.grad is None
    for key, tensor in (
        ("train_codebook_after", book.embedding.weight),
        ("train_ema_w_after", book.ema_w),
        ("train_ema_cluster_after", book.ema_cluster_size),
        ("train_perplexity", model.quantizer.perplexity),
    ):
        np.testing.assert_allclose(tensor.detach().numpy(), given[key], **CLOSE, err_msg=key)
