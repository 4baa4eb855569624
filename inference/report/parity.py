"""Measures how far the findings model is from the reference's golden numbers.

The wording of the prompts is read from the golden set, which is its only place.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.checkpoints import read_state_dict
from inference.neurovfm import batching
from inference.neurovfm.pipeline import window_of
from inference.neurovfm.vlm import FindingsGenerationPipeline
from inference.parity.rows import Array, Measure, Row, arrays, compare, same
from inference.report import official, splicing
from inference.report.decoding import Decoding
from inference.report.language_model import LanguageModel
from inference.report.parity_differences import CHAPTERS
from inference.report.prompt import PromptStyle
from inference.report.viewing import rounded_positions

__all__ = ["CHAPTERS", "MEASURES"]

CONNECTOR = "atol 1e-5"
LOOSE = 3e-2
"""Norm of the difference in bfloat16, relative to the reference's."""
STUDIES = {"mri": ("study_mr_list", (0, 2, 4)), "ct": ("study_ct_list", (0, 1, 2, 3, 4))}
"""The studies of n1_preprocess that the case shows, and which of their series."""
PLAIN = Decoding(max_new_tokens=16, min_new_tokens=16)
CARRIED = Decoding(max_new_tokens=16, min_new_tokens=16, repetition_penalty=1.2, no_repeat_ngram=4)
"""The reference keeps the settings of one call for the next: greedy after beams has penalties."""
BEAMS = Decoding(
    beams=4, max_new_tokens=16, min_new_tokens=3, repetition_penalty=1.2, no_repeat_ngram=4
)
GREEDY_OF = {"f32_single_context": CARRIED, "f32_batch2": CARRIED}
ROUNDED, HALF = "f32_single_bf16_rounded_buffers", "bf16_single"


@dataclass(frozen=True, eq=False)
class GoldenCase:
    """One file of the golden set with what its meta.json says of it."""

    name: str
    data: Mapping[str, Array]
    contexts: tuple[str, ...]
    modes: tuple[str, ...]
    """Modality of each study."""

    @property
    def projected(self) -> list[Array]:
        """The reference's projected tokens of each study, [S x Q, D]."""
        return [self.data[f"projected_{index}"] for index in range(len(self.contexts))]


def read_style(meta: Mapping[str, Any]) -> PromptStyle:
    """The wording of the golden set's prompts."""
    turns = [_user_lines(text) for text in _prompts(meta)]
    instruction, *between, answer_format = max(turns, key=len)
    line = between[0] if between else ": "
    return PromptStyle(
        system=meta["config"]["language_model_cf"]["system_prompt"],
        instruction=instruction,
        indication=line.split(": ", 1)[0] + ": {indication}",
        answer_format=answer_format,
    )


def read_case(folder: Path, meta: Mapping[str, Any], name: str) -> GoldenCase:
    """One golden file."""
    info = meta[name]["info"]
    turns = [_user_lines(text) for text in info["prompt_text"]]
    return GoldenCase(
        name,
        arrays(folder / f"{name}.npz"),
        tuple(turn[1].split(": ", 1)[1] if len(turn) > 2 else "" for turn in turns),
        tuple(study["mode"][0] for study in info["series"]),
    )


def load_pipeline(
    folder: Path, meta: Mapping[str, Any], *, rounded: bool = False
) -> FindingsGenerationPipeline:
    """The golden checkpoint on the CPU in float32."""
    with tempfile.TemporaryDirectory() as place:
        parts = official.read_findings_model(complete_checkpoint(folder, Path(place)))
    language_model = folder / "checkpoint" / official.LANGUAGE_MODEL
    model = LanguageModel.load(language_model, rounded_buffers=rounded)
    device = torch.device("cpu")
    return FindingsGenerationPipeline(parts, model, read_style(meta), device, rounded=rounded)


def complete_checkpoint(folder: Path, place: Path) -> Path:
    """The case's checkpoint; a compact golden set lacks its encoder, which is that of n2_encoder.

    Args:
        folder: the case.
        place: an empty folder for what has to be put together.
    """
    checkpoint = folder / "checkpoint"
    if (checkpoint / official.ENCODER).is_file():
        return checkpoint
    for item in checkpoint.iterdir():
        (place / item.name).symlink_to(item.resolve())
    source = folder.parent / "n2_encoder" / "checkpoint" / "pytorch_model.bin"
    state = {
        official.PREFIX + key: value.to(torch.bfloat16)
        for key, value in read_state_dict(source).items()
    }
    torch.save({"state_dict": state}, place / official.ENCODER)
    return place


def _walk(folder: Path, meta: Mapping[str, Any]) -> Iterator[Row]:
    pipeline = load_pipeline(folder, meta)
    # A compact golden set has not every file.
    names = [name for name in meta if (folder / f"{name}.npz").is_file()]
    names = [name for name in names if name.startswith("f32_") and name != ROUNDED]
    for name in names:
        case = read_case(folder, meta, name)
        yield from _shown(folder, meta, case, pipeline)
        yield from _prompted(case, meta, pipeline)
        yield from _generated(case, meta, pipeline)
    yield from _empty(folder, pipeline)
    rounded = load_pipeline(folder, meta, rounded=True)
    case = read_case(folder, meta, ROUNDED)
    yield from _shown(folder, meta, case, rounded)
    yield from _generated(case, meta, rounded)
    if (folder / f"{HALF}.npz").is_file():
        yield from _half(folder, meta, pipeline)


def _shown(
    folder: Path, meta: Mapping[str, Any], case: GoldenCase, pipeline: FindingsGenerationPipeline
) -> Iterator[Row]:
    """Encoder and connector: from tokens of n1_preprocess to the language model's width."""
    place, said = (folder.name, case.name), meta["tolerance"]["projected/embeds"]
    packed = _studies(folder.parent / "n1_preprocess", case.modes)
    with torch.inference_mode(), rounded_positions(pipeline.encoder, pipeline.rounded):
        embedded = batching.embed(pipeline.encoder, packed, stats=pipeline.normalization_stats)
        yield compare(place, "visual_tokens", embedded, case.data["visual_tokens"], said)
        start, first = 0, 0
        for index, wanted in enumerate(case.projected):
            count = len(STUDIES[case.modes[index]][1])
            lengths = packed.lengths[first : first + count]
            rows = torch.from_numpy(case.data["visual_tokens"])[start : start + sum(lengths)]
            found = pipeline.connector(rows, lengths).flatten(0, 1)
            yield compare(place, f"projected_{index}", found, wanted, CONNECTOR)
            start, first = start + sum(lengths), first + count


def _prompted(
    case: GoldenCase, meta: Mapping[str, Any], pipeline: FindingsGenerationPipeline
) -> Iterator[Row]:
    """Ids, masks, labels and the spliced embeddings, as for generation and as for training."""
    place, said = ("n4_vlm", case.name), meta["tolerance"]["projected/embeds"]
    visual, writer = _visual(case, pipeline), pipeline.writer
    taught = [writer.taught(len(v), c) for v, c in zip(visual, case.contexts, strict=True)]
    pad = pipeline.language_model.endings.pad
    batch = splicing.collate([ids for ids, _ in taught], pad, labels=[lab for _, lab in taught])
    with torch.inference_mode():
        learned = splicing.splice(batch, visual, pipeline.language_model.embed, writer.image_id)
        asked = pipeline.splice(visual, case.contexts)
    rows = [writer.ids(len(v), c) for v, c in zip(visual, case.contexts, strict=True)]
    ids = splicing.collate(rows, pad, attend_padding=len(rows) > 1)
    found: dict[str, Tensor] = {
        "input_ids": batch.ids,
        "attention_mask": batch.mask,
        "labels": batch.labels,
        "gen_input_ids": ids.ids,
        "gen_attention_mask_pre": ids.mask,
        "gen_attention_mask": asked.mask,
        "sft_attention_mask": learned.mask,
        "sft_labels": learned.labels,
    }
    for quantity, values in found.items():
        yield compare(place, quantity, values, case.data[quantity], "exact")
    yield compare(place, "gen_inputs_embeds", asked.embeds, case.data["gen_inputs_embeds"], said)


def _generated(
    case: GoldenCase, meta: Mapping[str, Any], pipeline: FindingsGenerationPipeline
) -> Iterator[Row]:
    """Scores of the first token, and the generated ids."""
    place, said = ("n4_vlm", case.name), meta["tolerance"]["projected/embeds"]
    model = pipeline.language_model
    prompts = pipeline.splice(_visual(case, pipeline), case.contexts)
    found = model.logits(prompts.embeds, prompts.mask)
    yield compare(place, "last_logits", found, case.data["last_logits"], said)
    ways = {"greedy16": GREEDY_OF.get(case.name, PLAIN), "beam_official_no_schema": BEAMS}
    for way, decoding in ways.items():
        wanted = case.data.get(f"generated_{way}")
        if wanted is not None:
            ids = model.generate(prompts.embeds, prompts.mask, decoding)
            yield same(place, f"generated ids, {way}", ids == wanted.tolist(), wanted.size)


def _empty(folder: Path, pipeline: FindingsGenerationPipeline) -> Iterator[Row]:
    """A series without tokens, and a study without any."""
    data, name = arrays(folder / "connector_empty_series.npz"), "connector_empty_series"
    lengths = [b - a for a, b in pairwise(data["cu"].tolist())]
    with torch.inference_mode():
        found = pipeline.connector(torch.from_numpy(data["tokens"]), lengths).flatten(0, 1)
        nothing = pipeline.connector(torch.zeros(0, data["tokens"].shape[1]), [0, 0])
    place = (folder.name, name)
    yield compare(place, "projected", found, data["projected"], CONNECTOR)
    wanted = data["projected_empty_study"]
    yield compare(place, "projected_empty_study", nothing.flatten(0, 1), wanted, "exact")


def _half(
    folder: Path, meta: Mapping[str, Any], pipeline: FindingsGenerationPipeline
) -> Iterator[Row]:
    """The reference exactly as shipped, bfloat16 throughout; loose by its own words."""
    case = read_case(folder, meta, HALF)
    directory = folder / "checkpoint" / official.LANGUAGE_MODEL
    model = LanguageModel.load(directory, dtype=torch.bfloat16, rounded_buffers=True)
    lengths = meta[HALF]["info"]["series"][0]["len"]
    connector = pipeline.connector.to(torch.bfloat16)
    tokens = torch.from_numpy(case.data["visual_tokens"])
    with torch.inference_mode():
        found = connector(tokens, lengths).flatten(0, 1).float()
    prompts = torch.from_numpy(case.data["gen_inputs_embeds"])
    scores = model.logits(prompts, torch.ones(prompts.shape[:2], dtype=torch.long))
    for quantity, values in (("projected_0", found), ("last_logits", scores)):
        wanted = case.data[quantity]
        relative = float(np.linalg.norm(values.numpy() - wanted) / np.linalg.norm(wanted))
        said = f"relative norm {LOOSE:g}"
        place = (folder.name, HALF)
        yield Row(*place, f"{quantity}, bf16", wanted.size, relative, said, relative < LOOSE)


def _visual(case: GoldenCase, pipeline: FindingsGenerationPipeline) -> list[Tensor]:
    size = (pipeline.connector.config.queries, pipeline.connector.config.language_dim)
    return [torch.from_numpy(array).reshape(-1, *size) for array in case.projected]


def _studies(folder: Path, modes: Sequence[str]) -> batching.Packed:
    """The chosen series of the named studies, end to end."""
    known = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["studies"]
    tokens, coords, lengths, windows = [], [], [], []
    for mode in modes:
        name, chosen = STUDIES[mode]
        data, facts = arrays(folder / f"{name}.npz"), known[name.removeprefix("study_")]
        edges = data["series_cu_seqlens"]
        for index in chosen:
            rows = slice(int(edges[index]), int(edges[index + 1]))
            tokens.append(torch.from_numpy(data["img"][rows]))
            coords.append(torch.from_numpy(data["coords"][rows].astype(np.int64)))
            lengths.append(len(tokens[-1]))
            windows.append(window_of(facts["mode"][index], facts["path"][index]))
    return batching.Packed(torch.cat(tokens), torch.cat(coords), tuple(lengths), tuple(windows))


def _prompts(meta: Mapping[str, Any]) -> list[str]:
    cases = [
        value["info"] for value in meta.values() if isinstance(value, Mapping) and "info" in value
    ]
    return [text for info in cases for text in info["prompt_text"]]


def _user_lines(prompt: str) -> list[str]:
    """Lines of the user's turn, without the images before the first."""
    turn = prompt.split("<|im_start|>user\n", 1)[1].split("<|im_end|>", 1)[0]
    return turn.rsplit("<|vision_end|>", 1)[-1].split("\n")


MEASURES: Mapping[str, Measure] = {"n4_vlm": _walk}
