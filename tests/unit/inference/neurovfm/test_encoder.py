"""The encoder and its layers: what holds for any weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from inference.errors import ConfigError, InputError
from inference.layers.positions import encode_positions_3d
from inference.layers.segments import read_segments, segment_softmax
from inference.neurovfm.model import VisionTransformer, build_encoder

LENGTHS = (5, 5, 0, 9, 3)


def packed(lengths: tuple[int, ...] = LENGTHS) -> tuple[torch.Tensor, ...]:
    """Random tokens, coordinates and boundaries of series of these lengths."""
    torch.manual_seed(7)
    total = sum(lengths)
    edges = torch.tensor([0, *lengths]).cumsum(0)
    return torch.randn(total, 1024), torch.randint(0, 16, (total, 3)), edges


def test_series_do_not_see_each_other(encoder: VisionTransformer):
    """A series alone has the embeddings that it has among others, empty ones included."""
    tokens, coords, edges = packed()
    with torch.no_grad():
        together = encoder(tokens, coords, edges)
        for start, stop in read_segments(edges, len(tokens)).bounds:
            alone = encoder(tokens[start:stop], coords[start:stop], torch.tensor([0, stop - start]))
            torch.testing.assert_close(alone, together[start:stop], rtol=1e-5, atol=1e-6)


def test_encoder_learns(encoder: VisionTransformer):
    """Every parameter gets a gradient, with dropout and stochastic depth switched on."""
    config = {"which": "vit", "params": {"embed_dim": 48, "depth": 2, "num_heads": 4}}
    config["params"] |= {"drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.1}
    config["params"] |= {"embed_layer_cf": {"which": "voxel"}, "mlp_ratio": 2.0}
    torch.manual_seed(3)
    model = build_encoder(config).train()
    tokens, coords, edges = packed()
    model(tokens, coords, edges).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without


def test_positions_equal_a_table_of_all_positions():
    """The code of a coordinate is sine and cosine per axis, ten channels each, h before w."""
    coords = torch.tensor([[0, 0, 0], [3, 1, 2]])
    codes = encode_positions_3d(coords, 30)
    assert codes.shape == (2, 30)
    inverse = 10000.0 ** (-np.arange(0, 10, 2) / 10)
    for axis, value in enumerate((3, 1, 2)):
        expected = np.stack([np.sin(value * inverse), np.cos(value * inverse)], -1).ravel()
        np.testing.assert_allclose(codes[1, axis * 10 : axis * 10 + 10], expected, atol=1e-6)


@pytest.mark.parametrize("bad", [[0, -1, 0], [16, 0, 0], [0, 0, 16]])
def test_coordinates_outside_the_grid_are_refused(encoder: VisionTransformer, bad: list[int]):
    """The reference's flat table would return another position's row."""
    with pytest.raises(InputError, match="position grid"):
        encoder(torch.zeros(1, 1024), torch.tensor([bad]), torch.tensor([0, 1]))


@pytest.mark.parametrize("edges", [[], [1, 4], [0, 3], [0, 5], [0, 3, 2, 4]])
def test_boundaries_that_do_not_cover_the_tokens_are_refused(edges: list[int]):
    """They start at 0, never fall and end at the number of tokens."""
    with pytest.raises(InputError, match="do not cover 4 tokens"):
        read_segments(torch.tensor(edges), 4)


def test_softmax_of_each_segment_sums_to_one():
    """Per column, over the rows of one segment only; empty segments do no harm."""
    _, _, edges = packed()
    segments = read_segments(edges, int(edges[-1]))
    weights = segment_softmax(torch.randn(int(edges[-1]), 4) * 50, segments)
    for start, stop in segments.bounds:
        if stop > start:
            torch.testing.assert_close(weights[start:stop].sum(0), torch.ones(4))


@pytest.mark.parametrize(
    ("preset", "size"),
    [("vit_tiny", (192, 12, 3)), ("base", (768, 12, 12)), ("vit_huge", (1280, 32, 16))],
)
def test_presets_have_the_published_sizes(preset: str, size: tuple[int, int, int]):
    """Width, depth and heads by name, with or without the prefix."""
    config = {"which": preset, "params": {"token_dim": 1024, "embed_layer_cf": {"which": "voxel"}}}
    with torch.device("meta"):
        built = build_encoder(config).config
    assert (built.embed_dim, built.depth, built.num_heads) == size


@pytest.mark.parametrize(
    ("where", "key", "value", "message"),
    [
        ("top", "which", "resnet", "resnet"),
        ("top", "normalization_stats", [], "normalization_stats"),
        ("params", "prefix_len", 1, "prefix_len"),
        ("params", "wrong_key", 1, "wrong_key"),
        ("params", "num_heads", 5, "does not divide"),
        ("params", "embed_layer_cf", {"which": "conv"}, "conv"),
        ("params", "embed_layer_cf", {"which": "voxel", "params": {"embed_dim": 9}}, "18|9"),
        ("params", "pos_emb_cf", {"which": "rope"}, "rope"),
    ],
)
def test_unknown_configurations_are_refused_by_name(
    where: str, key: str, value: object, message: str
):
    """A key or value that this encoder does not have is an error, never a default."""
    params = {"embed_dim": 48, "depth": 1, "num_heads": 4, "token_dim": 1024}
    params |= {"embed_layer_cf": {"which": "voxel"}}
    params |= {"pos_emb_cf": {"which": "pe3d", "params": {"d": 30}}}
    config = copy.deepcopy({"which": "vit", "params": params})
    (config if where == "top" else config["params"])[key] = value
    with pytest.raises(ConfigError, match=message):
        build_encoder(config)
