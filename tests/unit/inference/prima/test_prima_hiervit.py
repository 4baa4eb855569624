"""The study model: no padding leaks, every layout of the checkpoint loads, stages compose."""

from __future__ import annotations

import pytest
import torch
from factories import prima

from inference.checkpoints import load_strictly
from inference.errors import ConfigError, InputError, WeightsError
from inference.prima.hiervit import HierVit
from inference.prima.hiervit_sizes import HeadCounts, read_head_counts, read_sizes
from inference.prima.model import EncodedSeries, PrimaModel
from inference.prima.texts import PretrainedTextEncoder, TextEncoder
from inference.prima.token_rows import raster_coords, token_rows

COUNTS = HeadCounts(2, 2, 2, 2)


@pytest.fixture(scope="module")
def model() -> PrimaModel:
    """A small model without heads."""
    return PrimaModel(prima.hiervit(), {})


def series(count: int, name: str, axis: int = 0) -> EncodedSeries:
    """Encoded tokens at their raster places."""
    torch.manual_seed(count)
    latents = torch.randn(count, 2, *(2 if i == axis else 8 for i in range(3)))
    return EncodedSeries(latents, raster_coords(64, axis)[:count], axis, name)


def test_studies_in_one_batch_do_not_see_each_other(model: PrimaModel):
    """Series and studies of different lengths give alone what they give in company."""
    given = [series(30, "AX_T2"), series(7, "unk", 1), series(11, "SAG_T1", 2)]
    vectors = model.encode_all(given)
    for one, vector in zip(given, vectors, strict=True):
        alone = model.encode_series(one.latents, one.coords, one.axis, one.name)
        torch.testing.assert_close(alone, vector, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encode_all(given, budget=1), vectors, rtol=1e-4, atol=1e-5)
    both = model.encode_studies([vectors[:2], vectors[2:]], ["MR BRAIN", "x"])
    torch.testing.assert_close(model.encode_study(vectors[:2], "MR BRAIN"), both[0])
    torch.testing.assert_close(model.encode_study(vectors[2:], "x"), both[1])


def test_variants_of_a_series_equal_the_series_without_those_tokens(model: PrimaModel):
    """What an explanation perturbs is what the model would have read."""
    whole = series(20, "AX_T2")
    torch.manual_seed(1)
    keep = torch.rand(6, 20) > 0.5
    vectors = model.encode_variants(whole, keep)
    for mask, vector in zip(keep, vectors, strict=True):
        alone = model.encode_series(whole.latents[mask], whole.coords[mask], 0, "AX_T2")
        torch.testing.assert_close(alone, vector, rtol=1e-4, atol=1e-5)
    studies = vectors[:, None].expand(-1, 2, -1)
    embeddings = model.encode_study(studies, "MR")
    torch.testing.assert_close(embeddings[3], model.encode_study(studies[3], "MR"))
    with pytest.raises(InputError, match="keep one token"):
        model.encode_variants(whole, torch.zeros(1, 20, dtype=torch.bool))


def test_nothing_of_the_callers_is_changed(model: PrimaModel):
    """The reference adds 1 to the caller's lengths with every call."""
    one = series(9, "AX_T2")
    before = (one.latents.clone(), one.coords.clone())
    model.encode_all([one])
    assert torch.equal(one.latents, before[0])
    assert torch.equal(one.coords, before[1])


@pytest.mark.parametrize("width", [289, 292])
@pytest.mark.parametrize("pretrained", [True, False])
def test_sizes_are_read_off_the_tensors(width: int, pretrained: bool):
    """Wider models fill their tokens with zeros; both layouts of the name encoder load."""
    source = prima.hiervit(width=width, pretrained_names=pretrained)
    state = source.state_dict()
    sizes = read_sizes(state, COUNTS)
    assert sizes == source.size
    loaded = HierVit(sizes)
    load_strictly(loaded, state, "visual")
    kind = PretrainedTextEncoder if pretrained else TextEncoder
    assert type(loaded.serieencoder) is kind
    assert len(PrimaModel(loaded.eval(), {}).encode_all([series(4, "x")])) == 1


def test_a_checkpoint_of_another_model_is_refused():
    """Missing tensors, other heads and widths that contradict each other are named."""
    state = prima.hiervit().state_dict()
    with pytest.raises(WeightsError, match=r"innerViT\.cls_token: missing"):
        read_sizes({"encoder.weight": torch.zeros(1)}, COUNTS)
    with pytest.raises(WeightsError, match="do not divide into 5 heads"):
        read_sizes(state, HeadCounts(5, 2, 2, 2))
    with pytest.raises(WeightsError, match="but tokens are 291"):
        read_sizes(state, HeadCounts(2, 2, 2, 2, position_channels=32))
    with pytest.raises(ConfigError, match="inner: 0 is no positive"):
        read_head_counts({"inner": 0})
    with pytest.raises(ConfigError, match="colour: unknown"):
        read_head_counts({"colour": 1})


def test_rows_name_their_axis_and_place():
    """The last three columns say which axis is thin; places beyond the grid are refused."""
    for axis in range(3):
        one = series(5, "x", axis)
        rows = token_rows(one.latents, one.coords, axis)
        assert rows.shape == (5, 289)
        assert rows[:, -3:].argmax(dim=1).tolist() == [axis] * 5
    one = series(5, "x", 1)
    with pytest.raises(InputError, match="not thin along axis 0"):
        token_rows(one.latents, one.coords, 0)
    with pytest.raises(InputError, match="outside"):
        token_rows(one.latents, one.coords + 400, 1)
    with pytest.raises(InputError, match="4 coordinates"):
        token_rows(one.latents, one.coords[:4], 1)
    with pytest.raises(InputError, match="slabs of 64"):
        raster_coords(65, 0)


def test_a_text_has_one_end(model: PrimaModel):
    """Padding behind the end is never read; a text without an end is refused."""
    codes = torch.tensor([3, 1, 46])
    encoder = model.visual.serieencoder
    padded = torch.tensor([3, 1, 46, 0, 0, 0])
    torch.testing.assert_close(encoder([codes]), encoder([padded]))
    with pytest.raises(InputError, match="0 end codes"):
        encoder([codes[:2]])


def test_a_study_without_series_has_no_embedding(model: PrimaModel):
    """Nothing is made up from registers alone."""
    with pytest.raises(InputError, match="without series"):
        model.encode_study(torch.zeros(0, 12), "MR")
    with pytest.raises(InputError, match="do not fit"):
        model.encode_all([series(0, "x")])
