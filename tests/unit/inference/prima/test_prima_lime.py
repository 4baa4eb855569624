"""LIME on Prima: variants are those of the model, groundings lie where they should."""

from __future__ import annotations

import dataclasses
import datetime as dt

import numpy as np
import pytest
import torch
from factories import dicom, prima

from inference.engine import Engine
from inference.explain import lime as neutral
from inference.explain.options import PUBLISHED, ExplainOptions
from inference.findings import LIME, Findings
from inference.manifest import HeadKind
from inference.prima import lime
from inference.prima.explaining import Wanted
from inference.prima.heads import StackedHeads, stack
from inference.prima.importing import Identity, Sources, import_official
from inference.prima.model import EncodedSeries, HeadReader, PrimaModel
from inference.study import SeriesInput, StudyInput

WANTED = Wanted(diagnoses=(1, 0), levels=(2,))


@pytest.fixture(scope="module")
def model() -> PrimaModel:
    """A small model with two diagnoses and a priority head."""

    def reader(seeds: range, outputs: int, indices: tuple[int, ...]) -> HeadReader:
        networks = [[m for m in prima.head(s, outputs) if hasattr(m, "weight")] for s in seeds]
        shapes = [[(m.out_features, m.in_features) for m in layers] for layers in networks]
        state = stack(shapes, lambda row: [(m.weight, m.bias) for m in networks[row]])
        return HeadReader(StackedHeads(state), indices)

    readers = {
        HeadKind.DIAGNOSES: reader(range(2), 3, (1, 0)),
        HeadKind.PRIORITY: reader(range(9, 10), 4, ()),
    }
    return PrimaModel(prima.hiervit(), readers)


def series(seed: int, count: int, axis: int = 0) -> EncodedSeries:
    """A series of `count` tokens, eight by eight in plane."""
    torch.manual_seed(seed)
    places = torch.cartesian_prod(torch.arange(9), torch.arange(8), torch.arange(8))[:count]
    sides = torch.tensor([4, 32, 32])
    return EncodedSeries(torch.randn(count, 2, 2, 8, 8), places * sides, axis, f"AX T{seed}")


def subject(model: PrimaModel, *given: EncodedSeries) -> lime.Subject:
    """A study of these series."""
    return lime.Subject(given, model.encode_all(given), "MR BRAIN")


def test_variants_give_the_answers_of_a_study_without_those_tokens(model: PrimaModel):
    """Importance and quality equal those of a fit over the model run anew for each variant."""
    study = subject(model, series(1, 40), series(2, 30))
    options = ExplainOptions(samples=33, series=0, features_per_sample=0.0)
    found = lime.explain(model, study, WANTED.read, options, seed=lambda number: number + 5)
    assert sorted(one.series for one in found) == [0, 1]
    one = next(e for e in found if e.series == 1)
    masks = neutral.draw_masks(6, 33, 30)
    answers = []
    for mask in masks:
        kept = torch.from_numpy(mask)
        whole = study.series[1]
        cut = dataclasses.replace(whole, latents=whole.latents[kept], coords=whole.coords[kept])
        vectors = model.encode_all([study.series[0], cut])
        said = model.heads(model.encode_study(vectors, "MR BRAIN")[None])
        answers.append(WANTED.read(said)[0].numpy())
    expected = neutral.fit(masks, np.float64(answers), neutral.kernel_weights(masks))
    assert one.importance.shape == (30, 3)
    np.testing.assert_allclose(one.importance, expected.coefficients, atol=2e-5)
    np.testing.assert_allclose(one.r2, expected.r2, atol=1e-3)


def test_the_same_seed_gives_the_same_explanation_whatever_the_batch(model: PrimaModel):
    """Repeating, and an eighth of the memory, change nothing but rounding."""
    study, options = subject(model, series(1, 64)), ExplainOptions(samples=40)
    runs = [
        lime.explain(model, study, WANTED.read, options, lambda _n: 3, scale=scale)[0]
        for scale in (1.0, 1.0, 0.02)
    ]
    np.testing.assert_array_equal(runs[0].importance, runs[1].importance)
    np.testing.assert_allclose(runs[0].importance, runs[2].importance, atol=1e-5)
    assert runs[0].features <= 20


def test_a_token_that_stands_there_twice_is_one_feature(model: PrimaModel):
    """Both copies go together and carry the same importance."""
    one = series(1, 36)
    twice = dataclasses.replace(
        one,
        latents=torch.cat([one.latents, one.latents[:4]]),
        coords=torch.cat([one.coords, one.coords[:4]]),
    )
    options = ExplainOptions(samples=33, features_per_sample=0.0)
    (found,) = lime.explain(model, subject(model, twice), WANTED.read, options, lambda _n: 0)
    assert found.features == 36
    np.testing.assert_array_equal(found.importance[:4], found.importance[36:])


def test_series_that_matter_most_come_first(model: PrimaModel):
    """The effect of a series is the change of the answer without it; the budget takes the top."""
    study = subject(model, series(1, 20), series(2, 20), series(3, 20))
    effects = lime.series_effects(model, study, WANTED.read)
    alone = model.heads(model.encode_study(study.vectors[[0, 2]], "MR BRAIN")[None])
    whole = model.heads(model.encode_study(study.vectors, "MR BRAIN")[None])
    lost = WANTED.read(whole)[0] - WANTED.read(alone)[0]
    np.testing.assert_allclose(effects[1], lost, atol=1e-5)
    options = ExplainOptions(samples=33, series=1)
    (found,) = lime.explain(model, study, WANTED.read, options, lambda _n: 0)
    assert found.series == np.abs(effects).max(axis=1).argmax()


def test_time_and_interruption_end_it(model: PrimaModel):
    """Out of time: what was sampled counts, too little counts for nothing; raising ends it."""
    study, said = subject(model, series(1, 64)), list[str]()
    options = ExplainOptions(samples=400, seconds=0.0)
    assert lime.explain(model, study, WANTED.read, options, lambda _n: 0) == []
    lime.explain(model, study, WANTED.read, PUBLISHED, lambda _n: 0, said.append, scale=4)
    assert said[-1] == "explaining series 1 of 1: 1000 of 1000 samples"
    assert len(said) > 1

    def stop(_text: str) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        lime.explain(model, study, WANTED.read, PUBLISHED, lambda _n: 0, stop)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, StudyInput, Findings]:
    """A study of two series through a small pack; every label is made present."""
    folder = tmp_path_factory.mktemp("explained")
    file = prima.save(prima.full_model(prima.hiervit()), folder / "model.pt")
    sources = Sources(file, *prima.tokenizer_files(folder))
    import_official(
        sources, folder / "pack", Identity("prima", "1.0.0", created=dt.date(2026, 11, 23))
    )
    given = []
    for key in ("a", "b"):
        datasets = dicom.mr_series(8, 64, 64, key=key)
        files = dicom.save_all(datasets, folder / key)
        given.append(SeriesInput(str(datasets[0].SeriesInstanceUID), "MR", key.upper(), files))
    engine = Engine([folder / "pack"], device="cpu")
    study = StudyInput("1.2", "MR", tuple(given))
    found = engine.analyse(study, "prima")
    # A threshold far below makes the diagnosis present, whatever random weights say.
    lowered = [dataclasses.replace(f, score=1.0 + n) for n, f in enumerate(found.findings)]
    return engine, study, dataclasses.replace(found, findings=tuple(lowered))


def test_present_findings_get_a_place_in_a_source_series(
    analysed: tuple[Engine, StudyInput, Findings],
):
    """Groundings name their method and fit, a key image of that series, and survive storage."""
    engine, study, found = analysed
    explained = engine.explain(study, "prima", found, ExplainOptions(samples=120, series=0))
    places = {f.label: f.grounding for f in explained.findings if f.grounding is not None}
    assert "infectious_brain_abscess" in places
    place = places["infectious_brain_abscess"]
    assert place is not None
    assert place.method == LIME
    assert place.fit is not None
    assert place.fit > 0
    assert (place.saliency.min() >= 0).all()
    assert place.saliency.max() == 1
    assert place.series_uid in {s.series_uid for s in study.series}
    assert place.key_sop_uid
    assert all(f.kind == "diagnosis" for f in explained.findings if f.grounding is not None)
    assert explained.timings_s["explain"] > 0
    assert [f.score for f in explained.findings] == [f.score for f in found.findings]
    again = engine.explain(study, "prima", found, ExplainOptions(samples=120, series=0))
    np.testing.assert_array_equal(
        again.findings[0].grounding.saliency,  # type: ignore[union-attr]
        place.saliency,
    )
    stored = Findings.from_json(explained.to_json()).findings[0].grounding
    assert stored is not None
    assert (stored.method, stored.fit) == (LIME, place.fit)


def test_nothing_present_costs_nothing(analysed: tuple[Engine, StudyInput, Findings]):
    """Without a present finding no file is read, and no grounding is made."""
    engine, study, found = analysed
    absent = dataclasses.replace(
        found, findings=tuple(dataclasses.replace(f, score=-1.0) for f in found.findings)
    )
    gone = dataclasses.replace(study, series=())
    assert engine.explain(gone, "prima", absent, ExplainOptions()).findings == absent.findings
