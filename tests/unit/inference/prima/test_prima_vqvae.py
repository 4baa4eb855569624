"""The tokenizer is MONAI's VQVAE by keys and numbers, however its input is cut and folded."""

from __future__ import annotations

import pytest
import torch
from factories import prima

from inference.errors import ConfigError, InputError
from inference.prima import vqvae
from inference.prima.vqvae import VQVAE, Tokenizer
from inference.prima.vqvae_config import read_tokenizer_config

CONFIG = read_tokenizer_config(prima.TOKENIZER)


@pytest.fixture(scope="module")
def model() -> VQVAE:
    """A small tokenizer with random weights."""
    torch.manual_seed(1)
    return VQVAE(CONFIG).eval()


def blocks(axis: int, count: int = 5) -> torch.Tensor:
    """Blocks with their four slices along an axis."""
    torch.manual_seed(2)
    return torch.rand(count, *(4 if i == axis else 32 for i in range(3)))


@torch.inference_mode()
def test_keys_and_numbers_are_those_of_monai(model: VQVAE):
    """An independent implementation loads our state strictly and answers the same."""
    from monai.networks.nets import vqvae as monai

    settings = {k: v for k, v in prima.TOKENIZER.items() if k != "num_channels"}
    reference = monai.VQVAE(**settings, channels=prima.TOKENIZER["num_channels"]).eval()
    reference.load_state_dict(model.state_dict(), strict=True)
    x = blocks(0).repeat_interleave(2, dim=1)[:, None]
    torch.testing.assert_close(model.encode(x), reference.encode(x))
    ours, theirs = model(x), reference(x)
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])
    assert torch.equal(model.indices(x), reference.index_quantize(x))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_once_give_what_doubled_slices_give(model: VQVAE, axis: int):
    """The doubling is folded into the first kernel, along whichever axis is thin."""
    tokenizer = Tokenizer(model)
    doubled = blocks(axis).repeat_interleave(2, dim=axis + 1)[:, None]
    expected = tokenizer.encode(doubled)
    torch.testing.assert_close(tokenizer.encode_thin(blocks(axis), axis), expected)


def test_chunks_do_not_change_the_numbers(model: VQVAE, monkeypatch: pytest.MonkeyPatch):
    """One block at a time, and no block at all, are as good as all at once."""
    tokenizer = Tokenizer(model)
    whole = tokenizer.encode_thin(blocks(2), 2)
    monkeypatch.setattr(vqvae, "CPU_CHUNK_BYTES", 1)
    torch.testing.assert_close(tokenizer.encode_thin(blocks(2), 2), whole)
    assert tokenizer.encode_thin(blocks(2)[:0], 2).shape == (0, 2, 8, 8, 2)


def test_other_kernels_are_not_folded(model: VQVAE):
    """A first kernel that the folding does not fit gets its slices doubled."""
    settings = {**prima.TOKENIZER, "downsample_parameters": [[2, 2, 1, 0], [2, 2, 1, 0]]}
    tokenizer = Tokenizer(VQVAE(read_tokenizer_config(settings)))
    doubled = blocks(1).repeat_interleave(2, dim=2)[:, None]
    torch.testing.assert_close(tokenizer.encode_thin(blocks(1), 1), tokenizer.encode(doubled))


def test_a_fourth_axis_is_refused(model: VQVAE):
    """The error says which axes there are."""
    with pytest.raises(InputError, match="axis 3"):
        Tokenizer(model).encode_thin(blocks(0), 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act": "GELU"}, "act is 'GELU'"),
        ({"colour": 1}, "colour: unknown setting"),
        ({"num_channels": [4]}, "equal, positive lengths"),
        ({"num_embeddings": 0}, "1 or more"),
        ({"in_channels": None}, "not numbers"),
        ({"upsample_parameters": [[1, 2, 3, 4]] * 2}, "not numbers"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, object], message: str):
    """Nothing of a configuration is passed over."""
    with pytest.raises(ConfigError, match=message):
        read_tokenizer_config({"vqvae_config": {**prima.TOKENIZER, **change}})
