"""Measures tokenizer, study model, heads and whole pipeline of Prima against golden numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.checkpoints import read_state_dict
from inference.neurovfm.weights import read_json
from inference.parity.rows import Array, Place, Row, arrays, compare, same
from inference.prima import analyse, loading, pipeline
from inference.prima.config import Components, read_heads
from inference.prima.hiervit import HierVit
from inference.prima.model import EncodedSeries
from inference.prima.names import char_codes
from inference.prima.official import open_official
from inference.prima.patches import token_side
from inference.prima.preparation import prepare_official
from inference.prima.vqvae import Tokenizer

CPU = torch.device("cpu")
AXES = {"2_ax": 0, "3_cor": 1, "10_sag": 2}
FULL = "primafullmodel107.pt"
KINDS = ("diagnosis", "referral", "priority")
GIVEN_LATENTS = "rtol 1e-4 atol 5e-5"
"""What the case states for equal latents."""
Arrays = Mapping[str, Array]


def tokenizer(folder: Path, meta: Mapping[str, Any]) -> Iterator[Row]:
    """Latents by both entries, codes, voxels."""
    given, said = arrays(folder / "data.npz"), meta["tolerance"]["encode/recon"]
    read = _tokenizer(folder)
    for name, axis in AXES.items():
        place = (folder.name, name)
        blocks, wanted = torch.from_numpy(given[f"{name}__input"]), given[f"{name}__encode"]
        once = blocks[:, 0].index_select(axis + 1, torch.arange(0, 8, 2))
        yield compare(place, "latents", read.encode(blocks), wanted, said)
        folded = read.encode_thin(once, axis)
        yield compare(place, "latents, slices folded into the kernel", folded, wanted, said)
        with torch.inference_mode():
            codes = read.model.indices(blocks).numpy()
            voxels = read.model.decode_indices(torch.from_numpy(given[f"{name}__indices"]))
        clear = given[f"{name}__index_margin"] > 1e-3
        known = given[f"{name}__indices"][clear]
        yield compare(place, "codes, near-ties left out", codes[clear], known, "exact")
        yield compare(place, "voxels", voxels, given[f"{name}__recon"], said)


def study_model(folder: Path, meta: Mapping[str, Any]) -> Iterator[Row]:
    """Every stage between encoded tokens and the study embedding."""
    whole = folder.parent / "p4_full_model"
    if not (whole / FULL).is_file():
        return
    given, said = arrays(folder / "data.npz"), meta["tolerance"]
    rows = {k: torch.from_numpy(v) for k, v in arrays(folder / "visual_input.npz").items()}
    tokens = [rows[f"visual_{n}"] for n in range(len(rows))]
    with ExitStack() as files, torch.inference_mode():
        official = open_official(whole / FULL, files)
        visual = loading.build_visual(official.visual, official.counts, FULL)
        texts = [_codes(name) for name in meta["series_names"]]
        about = _codes(meta["study_description"])
        place = (folder.name, "checkpoint")
        for quantity, found in _stages(visual, tokens, texts, about).items():
            wanted = given[quantity]
            yield compare(place, quantity, found.reshape(wanted.shape), wanted, said)
        for number in range(len(tokens)):
            found = _rows_of(visual, arrays(whole / "data.npz"), given, number)
            wanted = tokens[number].numpy()
            yield compare((folder.name, f"series {number}"), "token rows", found, wanted, said)
        both = _two_studies(visual, tokens, texts, about, meta)
        yield compare((folder.name, "two studies"), "pooled", both, given["batch2_pooled"], said)
        # The variant's series transformer has one layer less: none of the other's may stay.
        others = {k: v for k, v in official.visual.items() if not k.startswith("innerViT.")}
        others |= read_state_dict(folder / "inner292_overrides.pt")
        wide = loading.build_visual(others, official.counts, "inner292")
        found = _stages(wide, tokens, texts, about)["pooled"]
        place = (folder.name, "variant inner 292")
        yield compare(place, "pooled", found, given["pooled_inner292"], said)


def whole_pipeline(folder: Path, meta: Mapping[str, Any]) -> Iterator[Row]:
    """DICOM directory to predictions: the full checkpoint, its variants, and its parts."""
    study_dir = folder.parent / "p1_prima_preprocess" / "study_SYN001"
    tokenizer_folder = folder.parent / "p2_vqvae"
    given, said = arrays(folder / "data.npz"), meta["tolerance"].split(";")[0]
    study = prepare_official(study_dir, meta["pipeline_config"]["study_description"])
    if len(study.series) != len(meta["encoded_series"]) or not (folder / FULL).is_file():
        return
    read = _tokenizer(tokenizer_folder)
    encoded = [analyse.encode(series, read) for series in study.series]
    for number, (series, one) in enumerate(zip(study.series, encoded, strict=True)):
        wanted = given[f"embeddings_{number}"][series.kept]
        place = (folder.name, meta["encoded_series"][number]["name"])
        yield compare(place, "latents of kept tokens", one.latents, wanted, said)
    for subject, model, wanted in _checkpoints(folder, given):
        found = _scores(model, tokenizer_folder, encoded, study.description)
        yield compare((folder.name, subject), "scores", found, wanted, said)
    official = _load(folder / FULL, tokenizer_folder)
    result = pipeline.predict(study, official)
    yield from _file_rows((folder.name, "predictions file"), result, meta["predictions"], said)
    theirs = [
        replace(one, latents=torch.from_numpy(given[f"embeddings_{number}"][series.kept]))
        for number, (one, series) in enumerate(zip(encoded, study.series, strict=True))
    ]
    found = _scores(folder / FULL, tokenizer_folder, theirs, study.description)
    wanted = next(_checkpoints(folder, given))[2]
    place = (folder.name, "the reference's latents")
    yield compare(place, "scores", found, wanted, GIVEN_LATENTS)


def _file_rows(
    place: Place, result: Mapping[str, Any], wanted: Mapping[str, Any], said: str
) -> Iterator[Row]:
    """The predictions file, key by key."""
    for kind in KINDS:
        written, expected = result[kind], wanted[kind]
        yield same(place, f"names, {kind}", list(written) == list(expected), len(expected))
        scores = np.array(list(written.values()))
        yield compare(place, kind, scores, np.array(list(expected.values())), said)
    embedding = np.array(result["clip_emb"])
    yield compare(place, "clip_emb", embedding, np.array(wanted["clip_emb"]), said)


def _stages(
    visual: HierVit, tokens: Sequence[Tensor], texts: Sequence[Tensor], description: Tensor
) -> dict[str, Tensor]:
    """What the study model holds on its way, by the names of the case."""
    names = visual.name_rows(texts)
    pooled = visual.pool_series(tokens, names)
    vectors = visual.encode_series(tokens, names)
    study = visual.encode_studies([vectors], [description])
    found = {"inner_pool": pooled, "inner_out": vectors, "pooled": study}
    found["clip_embedding_unit"] = visual.clip_vectors(study)
    if names is not None:
        found["serie_name_enc"] = names
    if visual.studyencoder is not None:
        found["study_desc_enc"] = visual.studyencoder([description])
    return found


def _rows_of(visual: HierVit, encoded: Arrays, given: Arrays, number: int) -> Tensor:
    """Rows of the tokens that the reference kept of a series, from its own latents."""
    latents = encoded[f"embeddings_{number}"]
    axis = latents.shape[2:].index(2)
    coords = given[f"coords_{number}"].astype(np.int64)
    grid = [len(latents) // 64 if i == axis else 8 for i in range(3)]
    numbers = np.ravel_multi_index((coords // token_side(axis)).T, grid)
    kept = torch.from_numpy(latents[numbers])
    return visual.token_rows(kept, torch.from_numpy(coords), axis)


def _two_studies(
    visual: HierVit,
    tokens: Sequence[Tensor],
    texts: Sequence[Tensor],
    description: Tensor,
    meta: Mapping[str, Any],
) -> Tensor:
    """Embeddings of the case's two studies, of five and three series, in one call."""
    facts = meta["batch2"]["study_B"]
    second = [tokens[4], tokens[0][:30], tokens[1][5:60]]
    names = [*texts, *(_codes(name) for name in facts["names"])]
    vectors = visual.encode_series([*tokens, *second], visual.name_rows(names))
    split = [vectors[: len(tokens)], vectors[len(tokens) :]]
    return visual.encode_studies(split, [description, _codes(facts["description"])])


def _checkpoints(folder: Path, given: Arrays) -> Iterator[tuple[str, Path | Components, Array]]:
    """Every layout of a checkpoint with the scores the reference got from it."""
    full = [given[kind][0] for kind in ("diagnosis", "referral", "priority4")]
    yield FULL, folder / FULL, np.concatenate(full)
    for file in sorted((folder / "pickle_variants").glob("*.pt")):
        yield f"variant {file.stem}", file, given[f"variant_{file.stem}"]
    parts = folder / "components_small"
    if parts.is_dir():
        components = Components(
            clip=parts / "clip.pt",
            diagnoses=read_heads(parts / "diagnosis_heads.json"),
            referrals=read_heads(parts / "referral_heads.json"),
            priority=parts / "priority_head.pt",
        )
        yield "components", components, given["components_small"]


def _scores(
    model: Path | Components,
    tokenizer_folder: Path,
    encoded: Sequence[EncodedSeries],
    description: str,
) -> Array:
    """Diagnosis, referral and priority scores in one row."""
    models = _load(model, tokenizer_folder)
    vectors = models.model.encode_all(encoded)
    result = pipeline.document(models.model.encode_study(vectors, description), models)
    return np.array([score for kind in KINDS for (score,) in result[kind].values()])


def _load(model: Path | Components, tokenizer_folder: Path) -> loading.OfficialModels:
    settings = read_json(tokenizer_folder / "config.json")["vqvae_config"]
    weights = tokenizer_folder / settings["ckpt_path"]
    return loading.load_official(model, settings, weights, CPU)


def _tokenizer(folder: Path) -> Tokenizer:
    settings = read_json(folder / "config.json")["vqvae_config"]
    return loading.build_tokenizer(settings, folder / settings["ckpt_path"], CPU)


def _codes(text: str) -> Tensor:
    return torch.from_numpy(char_codes(text))
