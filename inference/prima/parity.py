"""Measures how far this implementation of Prima is from the reference's golden numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inference.parity.rows import Array, Measure, Row, arrays, compare, same
from inference.prima import filtering, names, parity_models
from inference.prima.parity_differences import CHAPTERS
from inference.prima.preparation import prepare, prepare_official
from inference.prima.series import PrimaSeries
from inference.study import SeriesInput, StudyInput

__all__ = ["CHAPTERS", "MEASURES"]

STUDY = "study_SYN001"
UNTOUCHED = [256, 256]
"""Columns and rows of series that need no resizing: both paths must agree."""
GRAY_LEVEL = 1
"""The reference resamples them all the same and cuts off what comes out at 254.999."""


def _preprocessing(folder: Path, meta: Mapping[str, Any]) -> Iterator[Row]:
    study = prepare_official(folder / STUDY)
    place = (folder.name, "study")
    wanted = meta["load_mri_study"]["series_names"]
    found = [series.name for series in study.series]
    yield same(place, "series, their order and names", found == wanted, len(wanted))
    if found != wanted:
        return
    for number, (series, facts) in enumerate(zip(study.series, meta["series"], strict=True)):
        yield from _series(folder, number, series, facts, meta["tolerance"])
    yield from _filter_cases(folder.name, meta)


def _series(
    folder: Path,
    number: int,
    series: PrimaSeries,
    facts: Mapping[str, Any],
    said: Mapping[str, str],
) -> Iterator[Row]:
    place = (folder.name, facts["dir"])
    wanted = arrays(folder / f"series_{number}_{facts['dir']}.npz")
    patches = series.patches
    codes = names.char_codes(series.name)
    yield compare(place, "name codes", codes, np.array(facts["name_vec"]), "exact")
    if "image" in wanted:
        yield compare(place, "voxels", _unpadded(series, facts), wanted["image"], "exact")
    for quantity, tokens, key in (
        ("patches, by hash", patches.gather(), "patches_all_sha256_f32"),
        ("tokens, by hash", patches.upsampled(), "tokens_all_sha256_f32"),
    ):
        yield same(place, quantity, _sha256(tokens) == facts[key], tokens.size)
    if "sample_tokens" in wanted:
        some = patches.upsampled(wanted["sample_idx"])[:, 0]
        yield compare(place, "tokens, sampled", some, wanted["sample_tokens"], said["tokens"])
    yield compare(place, "coordinates", patches.coords, wanted["coords"], "exact")
    bright = series.values
    yield compare(place, "foreground percent", bright, wanted["otsu_values"], said["otsu_values"])
    yield compare(place, "kept tokens", series.kept, wanted["filter_useids"], "exact")
    yield compare(place, "kept coordinates", series.coords, wanted["filter_coords"], "exact")
    if facts["info"]["OriginalSize"][:2] == UNTOUCHED:
        mine = _own(folder, facts).patches.volume
        said_here = f"atol {GRAY_LEVEL}, the reference's rounding"
        theirs = patches.volume.astype(np.float32)
        yield compare(place, "voxels, agent's own path", mine, theirs, said_here)


def _filter_cases(case: str, meta: Mapping[str, Any]) -> Iterator[Row]:
    holes = meta["hole_fill"]
    z, y, x = (n // s for n, s in zip(holes["vol_shape"], holes["patch"], strict=True))
    values = np.array(holes["values"])
    for percent, wanted in holes["useids_by_percent"].items():
        found = filtering.tokens_from(values, (z, y, x), int(percent))
        place = (case, f"enclosed tokens, from {percent} %")
        yield compare(place, "kept tokens", found, np.array(wanted, np.int64), "exact")
    for name, facts in meta["percent_rule"].items():
        values = np.repeat([v for _, v in facts["values"]], [n for n, _ in facts["values"]])
        found, percent = filtering.choose_tokens(values, (1, 8, 8))
        wanted = np.array([facts["final_percent"], *facts["useids"]])
        place = (case, f"fall-back, {name}")
        yield compare(place, "kept tokens", np.array([percent, *found]), wanted, "exact")
    named = meta["get_series_name"]
    equal = [_name(facts) == facts["name"] for facts in named]
    yield same((case, "names"), "series names", all(equal), len(named))


def _name(facts: Mapping[str, Any]) -> str:
    texts = (facts["SeriesDescription"] or "", facts["ProtocolName"] or "")
    return names.series_name(*texts, "1.2.3.4")


def _unpadded(series: PrimaSeries, facts: Mapping[str, Any]) -> Array:
    """The volume as it was before the padding."""
    slices = facts["array_shape_zyx"][series.axis]
    before = (series.patches.volume.shape[series.axis] - slices) // 2
    cut = [slice(None)] * 3
    cut[series.axis] = slice(before, before + slices)
    return series.patches.volume[tuple(cut)]


def _own(folder: Path, facts: Mapping[str, Any]) -> PrimaSeries:
    """The same series as the agent reads it."""
    files = tuple((folder / STUDY / facts["dir"]).iterdir())
    study = StudyInput("1.2", "MR", (SeriesInput("1.2.3", "MR", "", files),))
    return prepare(study).series[0]


def _sha256(values: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


MEASURES: Mapping[str, Measure] = {
    "p1_prima_preprocess": _preprocessing,
    "p2_vqvae": parity_models.tokenizer,
    "p3_hiervit": parity_models.study_model,
    "p4_full_model": parity_models.whole_pipeline,
}
