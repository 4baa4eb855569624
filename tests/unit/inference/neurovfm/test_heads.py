"""The heads: what holds for any weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference.errors import ConfigError
from inference.neurovfm.heads import build_head

CONFIGS: dict[str, dict[str, Any]] = {
    "classify_first": {
        "which": "classify_then_aggregate",
        "params": {"hidden_dim": 8, "W_out": 4, "mlp_hidden_dims": [6], "drop_rate": 0.2},
    },
    "aggregate_first": {
        "which": "aggregate_then_classify",
        "params": {"hidden_dim": 8, "W_out": 2},
    },
    "classifier_on_pooled": {
        "pooler_cf": {"which": "aggregate_then_classify", "params": {"W_out": 1}},
        "proj_params": {"out_dim": 4, "hidden_dims": [5]},
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_of_a_head_learns(name: str):
    """Losses on what a head answers reach all of its weights, dropout switched on."""
    torch.manual_seed(0)
    head = build_head(CONFIGS[name], 16).train()
    answer = head(torch.randn(9, 16), torch.tensor([0, 4, 9]))
    loss = answer.logits.square().sum() + answer.attention.square().sum()
    if answer.pooled is not None:
        loss = loss + answer.pooled.square().sum()
    loss.backward()
    # A constant added to all scores of a softmax changes nothing: its gradient may be zero.
    assert [n for n, p in head.named_parameters() if p.grad is None] == []


def test_a_study_without_tokens_gets_the_biases_alone():
    """Nothing to attend to: logits are the output bias, not NaN."""
    torch.manual_seed(0)
    head = build_head(CONFIGS["classify_first"], 16).eval()
    with torch.no_grad():
        head.output_bias.uniform_(-1, 1)
        answer = head(torch.randn(3, 16), torch.tensor([0, 0, 3]))
    torch.testing.assert_close(answer.logits[0], head.output_bias.data)
    assert torch.isfinite(answer.logits).all()


def test_patch_evidence_and_attention_add_up_to_the_logits():
    """Attention times patch logits, summed and scaled, is the study's logit."""
    torch.manual_seed(2)
    head = build_head(CONFIGS["classify_first"], 16).eval()
    with torch.no_grad():
        head.output_scale.uniform_(0.5, 2)
        answer = head(torch.randn(7, 16), torch.tensor([0, 7]))
    assert answer.patch_logits is not None
    again = (answer.attention * answer.patch_logits).sum(0) * head.output_scale + head.output_bias
    torch.testing.assert_close(answer.logits[0], again)


def test_a_head_without_classifier_has_no_logits():
    """The official aggregate-first head pools only: zero columns, pooled vectors per query."""
    head = build_head(CONFIGS["aggregate_first"], 16).eval()
    answer = head(torch.randn(5, 16), torch.tensor([0, 5]))
    assert answer.logits.shape == (1, 0)
    assert answer.pooled is not None
    assert answer.pooled.shape == (1, 2, 16)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"which": "average", "params": {}}, "average"),
        ({"which": "classify_then_aggregate", "params": {"W_out": 2}}, "mlp_hidden_dims"),
        (
            {
                "which": "classify_then_aggregate",
                "params": {"W_out": 4, "mlp_hidden_dims": [], "mlp_out_dim": 3},
            },
            "mlp_out_dim",
        ),
        ({"which": "aggregate_then_classify", "params": {"heads": 2}}, "heads"),
        (
            {
                "pooler_cf": {"which": "aggregate_then_classify", "params": {"W_out": 2}},
                "proj_params": {"out_dim": 3},
            },
            "W_out 1",
        ),
    ],
)
def test_unknown_heads_are_refused_by_name(config: dict[str, Any], message: str):
    """A key or value that no head has is an error."""
    with pytest.raises(ConfigError, match=message):
        build_head(config, 16)
