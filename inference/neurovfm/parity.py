"""Measures how far this implementation of NeuroVFM is from the reference's golden numbers.

`within` of each row says whether the case's own tolerance holds. docs/parity.md is written from
these rows, never by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.neurovfm import batching, pipeline, preprocess, weights
from inference.neurovfm.heads import HeadOutput
from inference.neurovfm.model import VisionTransformer
from inference.neurovfm.parity_differences import CHAPTERS
from inference.neurovfm.studies import Source, StudyPreprocessor, read_image
from inference.neurovfm.tokens import normalise
from inference.parity.rows import Array, Measure, Row, arrays, compare
from inference.study import SeriesInput
from inference.volumes import read_series
from inference.volumes.model_grid import model_grid

__all__ = ["CHAPTERS", "MEASURES"]

Arrays = Mapping[str, Array]

AMP_RELATIVE = 3e-2
"""Norm of the difference of bfloat16 autocast, relative to the embeddings' norm."""
LINK_BYTES = 100
"""A file this small in place of an image is a link that a copy turned into text."""


def _preprocessing(folder: Path, meta: Mapping[str, Any]) -> Iterator[Row]:
    for name, facts in meta["volumes"].items():
        if facts["result"] == "ok":
            yield from _volume(folder, name, facts)
    for name, facts in meta["studies"].items():
        if facts["result"] == "ok":
            yield from _study(folder, name, facts, meta["tolerance"]["tokens"])


def _volume(folder: Path, name: str, facts: Mapping[str, Any]) -> Iterator[Row]:
    """One image file to voxels in model space, coordinates and background flags."""
    expected = arrays(folder / f"{name}.npz")
    image = read_image(Source(name, (str(folder / facts["file"]),)))
    values, _ = preprocess.to_model_space(image, facts["kind"], "reference")
    series = preprocess.tokenize(values, facts["kind"], remove_background=False)
    turned = expected["pre"].transpose({0: (0, 1, 2), 1: (1, 0, 2), 2: (2, 1, 0)}[facts["view"]])
    background = (~series[0].foreground.ravel()).astype(np.uint8)
    place = (folder.name, name)
    yield compare(place, "voxels", values, turned, "exact")
    yield compare(place, "coordinates", series[0].coords, expected["coords"], "exact")
    yield compare(place, "background flags", background, expected["filtered"], "exact")


def _study(folder: Path, name: str, facts: Mapping[str, Any], said: str) -> Iterator[Row]:
    """One study, NIfTI or DICOM, to the official batch."""
    expected = arrays(folder / f"study_{name}.npz")
    study = _located(facts["arg"], folder / "input")
    batch = StudyPreprocessor(**facts["kwargs"]).load_study(study, modality=facts["modality"])
    place = (folder.name, f"study {name}")
    yield compare(place, "tokens", batch["img"].numpy(), expected["img"], said)
    for key in ("coords", "series_cu_seqlens", "study_cu_seqlens"):
        yield compare(place, key, batch[key].numpy(), expected[key], "exact")
    series = [_dicom_files(item) for item in (study if isinstance(study, list) else [study])]
    if all(series):
        found = _from_spool(series, facts["modality"])
        yield compare(place, "tokens, agent's own path", found, expected["img"], said)


def _dicom_files(item: str) -> tuple[Path, ...]:
    """The files of a DICOM series that a study names by directory or multi-frame file."""
    path = Path(item)
    found = tuple(sorted(path.iterdir())) if path.is_dir() else (path,)
    return found if all(file.suffix == ".dcm" for file in found) else ()


def _from_spool(series: Sequence[tuple[Path, ...]], modality: str) -> Array:
    """Tokens of DICOM series as the agent makes them: its volumes, the safe rules."""
    dicom = "CT" if modality.lower() == "ct" else "MR"
    tokens = []
    for files in series:
        for volume in read_series(SeriesInput("", dicom, "", files)).volumes:
            grid = model_grid(volume)
            prepared = preprocess.preprocess_volume(
                grid.array, grid.affine, dicom, spacing_mm=grid.spacing_mm
            )
            tokens += [part.tokens for part in prepared.series]
    return np.concatenate(tokens) if tokens else np.zeros((0, 1024))


def _encoder(folder: Path, meta: Mapping[str, Any]) -> Iterator[Row]:
    expected, said = arrays(folder / "data.npz"), meta["tolerance"]["embeddings"]
    place = (folder.name, "checkpoint")
    packed = _packed(expected, meta["batch"])
    parts = torch.split(packed.tokens, list(packed.lengths))
    normal = torch.cat([normalise(x, w) for x, w in zip(parts, packed.windows, strict=True)])
    model = _load_encoder(folder / "checkpoint").model
    edges = torch.from_numpy(expected["series_cu_seqlens"])
    yield compare(place, "embeddings", batching.embed(model, packed), expected["embeddings"], said)
    yield _half_precision(place, batching.embed(model, packed, use_amp=True), expected)
    with torch.inference_mode():
        for quantity, values in _stages(model, normal, packed.coords, expected).items():
            yield compare(place, quantity, values, expected[quantity], said)
        index = meta["attn_golden"]["series_index"]
        attention = model.attention_weights(normal, packed.coords, edges, series=index)
    wanted = expected["attn_last_series"]
    yield compare(place, "attention", attention, wanted, meta["tolerance"]["attn"])
    for name in meta["variants"]:
        yield _variant(folder, name, normal, expected, said)


def _stages(
    model: VisionTransformer, normal: torch.Tensor, coords: torch.Tensor, data: Arrays
) -> dict[str, torch.Tensor]:
    """What the encoder holds on its way, by the names of the case."""
    edges = torch.from_numpy(data["series_cu_seqlens"])
    streams = list(model.streams(normal, coords, edges))
    masks = {key: torch.from_numpy(data[key]) for key in ("masks", "masks_enc")}
    masked_edges = torch.from_numpy(data["masked_cu_seqlens"])
    return {
        "patch_embed": model.token_embed(normal),
        "blocks_input": streams[0],
        **{f"stream_after_block{i}": stream for i, stream in enumerate(streams[1:])},
        "penultimate": model(normal, coords, edges, features="penultimate"),
        "masked_embeddings": model(normal, coords, masked_edges, **masks),
    }


def _variant(folder: Path, name: str, normal: torch.Tensor, data: Arrays, said: str) -> Row:
    """One configuration variant, on as many series as its output covers."""
    wanted = arrays(folder / f"variant_{name}" / "out.npz")["output"]
    edges = data["series_cu_seqlens"]
    bounds = torch.from_numpy(edges[: int(np.searchsorted(edges, len(wanted))) + 1])
    coords = torch.from_numpy(data["coords"][: len(wanted)].astype(np.int64))
    model = _load_encoder(folder / f"variant_{name}").model
    with torch.inference_mode():
        out = model(normal[: len(wanted)], coords, bounds)
    return compare((folder.name, f"variant {name}"), "embeddings", out, wanted, said)


def _half_precision(place: tuple[str, str], found: torch.Tensor, data: Arrays) -> Row:
    """Bfloat16 autocast against the float32 reference, as a relative norm."""
    wanted = data["embeddings"]
    relative = float(np.linalg.norm(found.float().numpy() - wanted) / np.linalg.norm(wanted))
    said = f"relative norm {AMP_RELATIVE:g}"
    within = relative < AMP_RELATIVE
    return Row(*place, "embeddings, bf16", wanted.size, relative, said, within)


def _heads(folder: Path, meta: Mapping[str, Any]) -> Iterator[Row]:
    for name, facts in meta["cases"].items():
        given = arrays(folder / ("input768.npz" if "label_names" in facts else "input.npz"))
        head = weights.load_head_files(
            folder / name / weights.CONFIG_FILE, weights.weights_file(folder / name)
        ).model
        with torch.inference_mode():
            answer = _quantities(
                head(
                    torch.from_numpy(given["embeddings"]),
                    torch.from_numpy(given["study_cu_seqlens"]),
                )
            )
        for quantity, wanted in arrays(folder / name / "out.npz").items():
            yield compare(
                (folder.name, name), quantity, answer[quantity], wanted, meta["tolerance"]
            )


def _quantities(answer: HeadOutput) -> dict[str, torch.Tensor]:
    """A head's output by the names the cases use."""
    found = {
        "logits": answer.logits,
        "probs": answer.probabilities,
        "preds": (answer.probabilities > pipeline.THRESHOLD).long(),
        "attention": answer.attention,
        "patch_logits": answer.patch_logits,
        "pooled": answer.pooled,
    }
    return {name: values for name, values in found.items() if values is not None}


def _packed(data: Arrays, facts: Mapping[str, Any]) -> batching.Packed:
    return batching.Packed(
        tokens=torch.from_numpy(data["img"]),
        coords=torch.from_numpy(data["coords"].astype(np.int64)),
        lengths=tuple(facts["series_lens"]),
        windows=tuple(map(pipeline.window_of, facts["mode"], facts["path"])),
    )


def _load_encoder(folder: Path) -> weights.LoadedEncoder:
    return weights.load_encoder_files(folder / weights.CONFIG_FILE, weights.weights_file(folder))


def _located(argument: str | list[str], inputs: Path) -> str | list[str]:
    """A study argument with <input> replaced; a directory of link texts as a list of targets."""
    if isinstance(argument, list):
        return [str(_located(item, inputs)) for item in argument]
    path = Path(argument.replace("<input>", str(inputs)))
    files = sorted(path.iterdir()) if path.is_dir() else []
    if any(file.stat().st_size < LINK_BYTES for file in files if file.is_file()):
        return [str(_linked(file)) for file in files]
    return str(path)


def _linked(file: Path) -> Path:
    if file.stat().st_size >= LINK_BYTES:
        return file
    return (file.parent / file.read_text(encoding="utf-8").strip()).resolve()


MEASURES: Mapping[str, Measure] = {
    "n1_preprocess": _preprocessing,
    "n2_encoder": _encoder,
    "n3_heads": _heads,
}
