"""Golden case n2: the encoder gives the reference's embeddings, from official files."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from factories import golden

from inference.neurovfm import load_encoder, tokens
from inference.neurovfm.model import VisionTransformer
from inference.neurovfm.pipeline import EncoderPipeline, window_of

CASE = golden.case("n2_encoder")
META = golden.meta("n2_encoder")
TOLERANCE = golden.tolerance(META["tolerance"]["embeddings"])
ATTENTION = golden.tolerance(META["tolerance"]["attn"])
AMP_MEAN = 0.05
AMP_RELATIVE = 3e-2


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    """The case's inputs and expected outputs."""
    return golden.arrays(CASE / "data.npz")


@pytest.fixture(scope="module")
def pipeline() -> EncoderPipeline:
    """The golden checkpoint, loaded as a user would."""
    return load_encoder(CASE / "checkpoint", device="cpu")[0]


@pytest.fixture(scope="module")
def normal(data: dict[str, np.ndarray]) -> torch.Tensor:
    """The case's tokens, normalised series by series."""
    facts, edges = META["batch"], data["series_cu_seqlens"]
    parts = []
    for i, (mode, path) in enumerate(zip(facts["mode"], facts["path"], strict=True)):
        parts.append(tokens.normalise(data["img"][edges[i] : edges[i + 1]], window_of(mode, path)))
    return torch.from_numpy(np.concatenate(parts))


def batch_of(data: dict[str, np.ndarray]) -> dict[str, Any]:
    """The official batch the case was made with."""
    facts = META["batch"]
    return {
        "img": torch.from_numpy(data["img"].copy()),
        "coords": torch.from_numpy(data["coords"].astype(np.int64)),
        "series_cu_seqlens": torch.from_numpy(data["series_cu_seqlens"]),
        "study_cu_seqlens": torch.from_numpy(data["study_cu_seqlens"]),
        "series_masks_indices": torch.tensor([]),
        "mode": facts["mode"],
        "path": facts["path"],
        "size": facts["size"],
    }


def inputs(data: dict[str, np.ndarray], series: int | None = None) -> tuple[torch.Tensor, ...]:
    """Coordinates and boundaries of all or of the first series."""
    edges = data["series_cu_seqlens"]
    edges = edges if series is None else edges[: series + 1]
    coords = data["coords"][: edges[-1]].astype(np.int64)
    return torch.from_numpy(coords), torch.from_numpy(edges)


def test_normalised_tokens_are_the_references(normal: torch.Tensor):
    """Means and deviations per window give the same float32 bytes."""
    digest = hashlib.sha256(normal.numpy().tobytes()).hexdigest()
    assert digest == META["normalised_tokens"]["sha256"]


def test_embeddings_in_float32_are_the_references(
    pipeline: EncoderPipeline, data: dict[str, np.ndarray]
):
    """`embed` of a batch of two studies and ten series, official files, no autocast."""
    out = pipeline.embed(batch_of(data), use_amp=False)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), data["embeddings"], **TOLERANCE)


def test_embeddings_in_bfloat16_stay_near_the_references(
    pipeline: EncoderPipeline, data: dict[str, np.ndarray]
):
    """As shipped: autocast is the default and half precision comes out."""
    out = pipeline.embed(batch_of(data))
    assert out.dtype == torch.bfloat16
    difference = out.float().numpy() - data["embeddings_amp_bf16_as_f32"]
    assert np.abs(difference).mean() < AMP_MEAN
    single = out.float().numpy() - data["embeddings"]
    assert np.linalg.norm(single) < AMP_RELATIVE * np.linalg.norm(data["embeddings"])


def test_every_stage_of_the_encoder_is_the_references(
    pipeline: EncoderPipeline, data: dict[str, np.ndarray], normal: torch.Tensor
):
    """Token projection, blocks' input, the stream after each block and the penultimate features."""
    coords, edges = inputs(data)
    model: VisionTransformer = pipeline.model
    with torch.inference_mode():
        projected = model.token_embed(normal)
        streams = list(model.streams(normal, coords, edges))
        penultimate = model(normal, coords, edges, features="penultimate")
    np.testing.assert_allclose(projected.numpy(), data["patch_embed"], **TOLERANCE)
    names = ["blocks_input", *(f"stream_after_block{i}" for i in range(len(streams) - 1))]
    for name, stream in zip(names, streams, strict=True):
        np.testing.assert_allclose(stream.numpy(), data[name], **TOLERANCE, err_msg=name)
    np.testing.assert_allclose(penultimate.numpy(), data["penultimate"], **TOLERANCE)


def test_attention_weights_of_a_series_are_the_references(
    pipeline: EncoderPipeline, data: dict[str, np.ndarray], normal: torch.Tensor
):
    """Every head of the last block, for one series out of the packed batch."""
    coords, edges = inputs(data)
    series = META["attn_golden"]["series_index"]
    with torch.inference_mode():
        weights = pipeline.model.attention_weights(normal, coords, edges, series=series)
    np.testing.assert_allclose(weights.numpy(), data["attn_last_series"], **ATTENTION)


def test_masked_tokens_are_embedded_as_the_reference_does(
    pipeline: EncoderPipeline, data: dict[str, np.ndarray], normal: torch.Tensor
):
    """Both index masks, the second counting in what the first one kept."""
    coords, _ = inputs(data)
    with torch.inference_mode():
        out = pipeline.model(
            normal,
            coords,
            torch.from_numpy(data["masked_cu_seqlens"]),
            masks=torch.from_numpy(data["masks"]),
            masks_enc=torch.from_numpy(data["masks_enc"]),
        )
    np.testing.assert_allclose(out.numpy(), data["masked_embeddings"], **TOLERANCE)


@pytest.mark.parametrize("name", META["variants"])
def test_config_variants_give_the_references_output(
    name: str, data: dict[str, np.ndarray], normal: torch.Tensor
):
    """Linear embedding, added positions, no positions and no biases: each its own checkpoint."""
    folder = CASE / f"variant_{name}"
    expected = golden.arrays(folder / "out.npz")["output"]
    edges = data["series_cu_seqlens"]
    coords, bounds = inputs(data, series=int(np.searchsorted(edges, len(expected))))
    model = load_encoder(folder, device="cpu")[0].model
    with torch.inference_mode():
        out = model(normal[: len(expected)], coords, bounds)
    np.testing.assert_allclose(out.numpy(), expected, **TOLERANCE)


def test_embedding_twice_gives_the_same_and_leaves_the_batch_alone(
    pipeline: EncoderPipeline, data: dict[str, np.ndarray]
):
    """The reference normalises the caller's tokens in place, so that its second answer is wrong."""
    batch = batch_of(data)
    first, second = (pipeline.embed(batch, use_amp=False) for _ in range(2))
    assert torch.equal(first, second)
    np.testing.assert_array_equal(batch["img"].numpy(), data["img"])
