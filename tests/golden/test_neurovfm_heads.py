"""Golden case n3: diagnostic heads give the reference's logits, attention and predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import golden

from inference.neurovfm import load_diagnostic_head
from inference.neurovfm.heads import HeadOutput

CASE = golden.case("n3_heads")
META = golden.meta("n3_heads")
TOLERANCE = golden.tolerance(META["tolerance"])
LABELLED = [name for name, facts in META["cases"].items() if "label_names" in facts]


def input_of(name: str) -> dict[str, torch.Tensor]:
    """Embeddings and study bounds that a case was made with."""
    file = "input768.npz" if name in LABELLED else "input.npz"
    return {k: torch.from_numpy(v) for k, v in golden.arrays(CASE / file).items()}


def quantities(answer: HeadOutput) -> dict[str, torch.Tensor | None]:
    """What the cases store, by its name there."""
    return {
        "logits": answer.logits,
        "probs": answer.probabilities,
        "preds": (answer.probabilities > 0.5).long(),
        "attention": answer.attention,
        "patch_logits": answer.patch_logits,
        "pooled": answer.pooled,
    }


@pytest.mark.parametrize("name", META["cases"])
def test_heads_give_the_references_numbers(name: str):
    """Every quantity the case holds, for several studies in one batch, from official files."""
    given = input_of(name)
    head = load_diagnostic_head(CASE / name, device="cpu")
    with torch.inference_mode():
        answer = quantities(head.model(given["embeddings"], given["study_cu_seqlens"]))
    expected = golden.arrays(CASE / name / "out.npz")
    assert expected
    for quantity, values in expected.items():
        found = answer[quantity]
        assert found is not None, quantity
        np.testing.assert_allclose(found.numpy(), values, **TOLERANCE, err_msg=quantity)


@pytest.mark.parametrize("name", LABELLED)
def test_predictions_carry_the_published_labels(name: str):
    """`predict` names all 82 CT or 74 MRI outputs in order, with probability and decision."""
    facts, given = META["cases"][name], input_of(name)
    expected = golden.arrays(CASE / name / "out.npz")
    head = load_diagnostic_head(CASE / name, device="cpu")
    studies = head.predict(given["embeddings"], given, use_amp=False)

    assert len(studies) == len(expected["probs"])
    for study, probabilities, decisions in zip(
        studies, expected["probs"], expected["preds"], strict=True
    ):
        names, values, positive = zip(*study, strict=True)
        assert list(names) == facts["label_names"]
        np.testing.assert_allclose(values, probabilities, **TOLERANCE)
        assert list(positive) == decisions.tolist()


@pytest.mark.parametrize("name", META["cases"])
def test_a_study_alone_gives_what_it_gives_in_company(name: str):
    """Studies of one batch do not see each other."""
    given = input_of(name)
    model = load_diagnostic_head(CASE / name, device="cpu").model
    edges = given["study_cu_seqlens"].tolist()
    with torch.inference_mode():
        together = model(given["embeddings"], given["study_cu_seqlens"]).attention
        last = given["embeddings"][edges[-2] :]
        alone = model(last, torch.tensor([0, len(last)])).attention
    np.testing.assert_allclose(alone.numpy(), together[edges[-2] :].numpy(), **TOLERANCE)
