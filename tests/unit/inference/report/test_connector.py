"""The vision connector: strict about its files, exact about what is empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from inference.errors import ConfigError, InputError, WeightsError
from inference.report.connector import VisionConnector, load_connector, read_config

SETTINGS: dict[str, Any] = {
    "serie_perceiver": {
        "perceiver_cfg": {"num_queries": 3, "num_layers": 2, "num_heads": 2, "dropout": 0.0}
    },
    "mlp_hidden_dim": None,
    "mlp_drop": 0.0,
}
CONFIG = read_config(SETTINGS, 8, 6)


@pytest.fixture
def connector() -> VisionConnector:
    """A seeded connector."""
    torch.manual_seed(0)
    return VisionConnector(CONFIG).eval()


@torch.inference_mode()
def test_a_series_is_condensed_alone(connector: VisionConnector) -> None:
    """No other series, before or after, of equal length or not, changes a series' tokens."""
    lengths = [4, 4, 1, 7, 7]
    tokens = torch.randn(sum(lengths), 8)
    together = connector(tokens, lengths)
    for index, part in enumerate(torch.split(tokens, lengths)):
        assert torch.allclose(together[index], connector(part, [len(part)])[0], atol=1e-6)


@torch.inference_mode()
def test_an_empty_series_is_the_projection_of_zeros_wherever_it_stands(
    connector: VisionConnector,
) -> None:
    """First, between and last: the same tokens, and the others keep their places."""
    tokens = torch.randn(5, 8)
    zeros = connector.mlp(torch.zeros(3, 8))
    for lengths in ([0, 5], [5, 0], [2, 0, 3], [2, 3, 0]):
        found = connector(tokens, lengths)
        assert torch.allclose(found[lengths.index(0)], zeros, atol=1e-6)
        filled = found[[n for n, length in enumerate(lengths) if length]]
        assert torch.allclose(filled, connector(tokens, [n for n in lengths if n]), atol=1e-6)


def test_a_study_without_a_token_is_zeros(connector: VisionConnector) -> None:
    """Not the projection of zeros: the reference gives zeros after it."""
    assert torch.equal(connector(torch.zeros(0, 8), [0, 0]), torch.zeros(2, 3, 6))


@pytest.mark.parametrize("lengths", [[4], [6], [6, -1]])
def test_lengths_that_do_not_cover_the_tokens_are_refused(
    connector: VisionConnector, lengths: list[int]
) -> None:
    """A series must not be shown another's tokens."""
    with pytest.raises(InputError, match="do not cover"):
        connector(torch.zeros(5, 8), lengths)


def test_embeddings_of_another_encoder_are_refused(connector: VisionConnector) -> None:
    """The width says so."""
    with pytest.raises(InputError, match="width 8"):
        connector(torch.zeros(5, 9), [5])


def test_every_key_that_does_not_fit_is_named(connector: VisionConnector, tmp_path: Path) -> None:
    """Missing, unexpected and mis-shaped keys of vision_connector.pt are an error each."""
    state = dict(connector.state_dict())
    state["mlp.fc2.weight"] = torch.zeros(5, 6)
    state["perceiver.gate"] = torch.zeros(1)
    del state["perceiver.layers.1.to_kv.weight"]
    torch.save(state, tmp_path / "vision_connector.pt")
    with pytest.raises(WeightsError) as caught:
        load_connector(CONFIG, tmp_path / "vision_connector.pt")
    for key in ("mlp.fc2.weight", "perceiver.gate", "perceiver.layers.1.to_kv.weight"):
        assert key in str(caught.value)


@pytest.mark.parametrize("wrapped", [True, False])
def test_bare_and_wrapped_files_load_the_same(
    connector: VisionConnector, tmp_path: Path, wrapped: bool
) -> None:
    """{"state_dict": ...} as the reference saves it, and the state alone."""
    state = connector.state_dict()
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "c.pt")
    loaded = load_connector(CONFIG, tmp_path / "c.pt").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"serie_perceiver": {"perceiver_cfg": {"num_heads": 3}}}, "3 heads"),
        ({"serie_perceiver": {"perceiver_cfg": {"num_querys": 3}}}, "num_querys"),
        ({"serie_perceiver": {"which": "mean"}}, "which"),
        ({"mlp_hidden_dim": 0}, "mlp_hidden_dim"),
        ({"mlp_act": "relu"}, "mlp_act"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(
    changes: dict[str, Any], named: str
) -> None:
    """By name: a key that is passed over could change every draft."""
    with pytest.raises(ConfigError, match=named):
        read_config({**SETTINGS, **changes}, 8, 6)
