"""The official findings pipeline: a study in, written findings out, as the reference words them.

A user of the reference changes one import line and names the prompt's wording, which the official
directories do not hold. Differences are listed in docs/parity.md.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import torch
from torch import Tensor

from inference.errors import InputError, NotAvailableError
from inference.neurovfm import batching, weights
from inference.neurovfm.pipeline import pick_device, read_batch
from inference.neurovfm.studies import StudyPreprocessor
from inference.report import official, splicing
from inference.report.answer import SCHEMA, Answer
from inference.report.decoding import REFERENCE, Decoding
from inference.report.language_model import LanguageModel
from inference.report.prompt import PromptStyle, PromptWriter
from inference.report.viewing import rounded_positions

if TYPE_CHECKING:
    from inference.report.draft import Triage

log = structlog.get_logger(__name__)

PROMPT_FILE = "prompt.json"
PathLike = str | os.PathLike[str]


def load_vlm(
    model_name_or_path: PathLike,
    device: str | torch.device | None = None,
    *,
    revision: str | None = None,
    prompt: PathLike | PromptStyle | None = None,
    rounded_buffers: bool | None = None,
) -> tuple[FindingsGenerationPipeline, StudyPreprocessor]:
    """Load a findings model from an official directory or a Hugging Face id.

    Args:
        model_name_or_path: directory with config.json, vision_encoder.pt, vision_connector.pt and
            language_model/, or owner/name on the hub.
        device: "cuda", "cpu", ...; None takes a GPU if there is one.
        revision: branch, tag or commit on the hub.
        prompt: the wording, or the JSON file that holds it; None reads prompt.json of the
            directory and falls back to our own, which the model was not trained with.
        rounded_buffers: rotary frequencies and position codes rounded to bfloat16, as the
            reference's cast leaves them; None does so on a GPU, where the rest is bfloat16 too.

    Raises:
        PackError: a part is missing, damaged or does not fit; the message names it.
        NotAvailableError: transformers is not installed (extra `local`).
    """
    directory = weights.locate(model_name_or_path, revision, official.FILES)
    target = pick_device(device)
    half = target.type == "cuda"
    rounded = half if rounded_buffers is None else rounded_buffers
    parts = official.read_findings_model(directory)
    language_model = LanguageModel.load(
        parts.language_model,
        target,
        torch.bfloat16 if half else torch.float32,
        rounded_buffers=rounded,
    )
    style = _style(prompt, directory)
    pipeline = FindingsGenerationPipeline(parts, language_model, style, target, rounded=rounded)
    return pipeline, StudyPreprocessor()


class FindingsGenerationPipeline:
    """A findings model on its device."""

    def __init__(
        self,
        parts: official.FindingsModel,
        language_model: LanguageModel,
        style: PromptStyle,
        device: torch.device,
        *,
        rounded: bool = False,
    ) -> None:
        self.device = device
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.encoder = parts.encoder.model.to(device)
        self.normalization_stats = parts.encoder.stats
        self.connector = parts.connector.to(device, dtype)
        self.language_model = language_model
        self.rounded = rounded
        # The reference closes an empty assistant turn before it lets the model write.
        self.writer = PromptWriter(style, language_model.vocabulary, empty_assistant_turn=True)

    def __call__(
        self,
        batch: Mapping[str, Any],
        clinical_context: str | Sequence[str | None] | None = None,
        *,
        decoding: Decoding = REFERENCE,
    ) -> str | list[str]:
        """The same as `generate`."""
        return self.generate(batch, clinical_context, decoding=decoding)

    def generate(
        self,
        batch: Mapping[str, Any],
        clinical_context: str | Sequence[str | None] | None = None,
        *,
        decoding: Decoding = REFERENCE,
    ) -> str | list[str]:
        """Write the findings of a batch; a list of texts for several studies.

        Args:
            batch: of `StudyPreprocessor.load_study`; several studies may be joined to one.
            clinical_context: the indication, or one for each study.
            decoding: four beams as the reference, or greedy.

        Raises:
            InputError: (a ValueError) the batch contradicts itself.
            KeyError: the model answered JSON without exam_type or findings.
        """
        visual = self.visual_tokens(batch)
        prompts = self.splice(visual, self._contexts(clinical_context, len(visual)))
        ids = self.language_model.generate(prompts.embeds, prompts.mask, decoding, SCHEMA)
        texts = [reference_text(self.language_model.vocabulary.decode(row)) for row in ids]
        return texts[0] if len(texts) == 1 else texts

    @torch.inference_mode()
    def visual_tokens(self, batch: Mapping[str, Any]) -> list[Tensor]:
        """Projected tokens of each study, [S, Q, D]."""
        packed = read_batch(batch)
        with rounded_positions(self.encoder, self.rounded):
            embedded = batching.embed(
                self.encoder,
                packed,
                device=self.device,
                stats=self.normalization_stats,
                use_amp=self.device.type == "cuda",
            )
        counts = series_of_studies(batch)
        found, first, start = [], 0, 0
        for count in counts:
            lengths = packed.lengths[first : first + count]
            stop = start + sum(lengths)
            found.append(self.connector(embedded[start:stop], lengths))
            first, start = first + count, stop
        return found

    @torch.inference_mode()
    def splice(self, visual: Sequence[Tensor], contexts: Sequence[str]) -> splicing.SplicedBatch:
        """The prompts of studies with their visual tokens in place."""
        rows = [self.writer.ids(len(v), c) for v, c in zip(visual, contexts, strict=True)]
        batch = splicing.collate(
            rows, self.language_model.endings.pad, attend_padding=len(rows) > 1
        )
        return splicing.splice(
            batch.to(self.device), visual, self.language_model.embed, self.writer.image_id
        )

    def _contexts(self, given: str | Sequence[str | None] | None, studies: int) -> list[str]:
        listed = [given] * studies if given is None or isinstance(given, str) else list(given)
        if len(listed) != studies:
            raise InputError(f"{len(listed)} clinical contexts were given for {studies} studies")
        return [context or "" for context in listed]


def series_of_studies(batch: Mapping[str, Any]) -> list[int]:
    """How many series each study of an official batch has.

    All of them where there is one study. Several studies are told apart by their token bounds,
    which leaves an empty series at a border without an owner; `series_per_study` in the batch then
    says whose it is.

    Raises:
        InputError: (a ValueError) the batch does not say.
    """
    edges: list[int] = batch["series_cu_seqlens"].tolist()
    studies: list[int] = batch["study_cu_seqlens"].tolist()
    if (said := batch.get("series_per_study")) is not None:
        counts = [int(count) for count in said]
        if len(counts) != len(studies) - 1 or sum(counts) != len(edges) - 1:
            raise InputError(f"series_per_study {counts} does not fit the batch's series")
        return counts
    if len(studies) == 2:
        return [len(edges) - 1]
    places = []
    for border in studies[1:-1]:
        if edges.count(border) != 1:
            raise InputError(
                f"an empty series lies at token {border}, where one study ends and another begins: "
                "give series_per_study"
            )
        places.append(edges.index(border))
    return [b - a for a, b in pairwise([0, *places, len(edges) - 1])]


def reference_text(decoded: str) -> str:
    """A generated text as the reference hands it out: worded from JSON, else as it is.

    Raises:
        KeyError: JSON without exam_type or findings.
    """
    decoded = decoded.strip()
    try:
        data = json.loads(decoded)
    except ValueError:
        log.warning("findings_without_form")
        return decoded
    exam_type, findings = data["exam_type"], data["findings"]
    listed = [findings] if isinstance(findings, str) and findings else findings
    numbered = listed if isinstance(listed, list) else []
    return Answer(str(exam_type), tuple(map(str, numbered))).to_text()


def interpret_findings(
    findings: str,
    clinical_context: str | None = None,
    api_key: str | None = None,
    *,
    client: Any = None,
) -> Triage:
    """Ask a reasoning model how soon a study with these findings should be read.

    The reference sends the findings to a company's server. Here nothing leaves the house by
    default: name the client of an endpoint, see docs/report-drafts.md.

    Args:
        findings: as `generate` wrote them.
        clinical_context: the indication.
        api_key: accepted as in the reference; the client holds its own.
        client: of `inference.report.triage`.

    Raises:
        NotAvailableError: no client was named.
        DraftError: the endpoint gave no opinion.
    """
    del api_key
    if client is None:
        raise NotAvailableError(
            "interpret_findings: name the client of a reasoning model (client=...); none is asked "
            "by default, for findings would leave the house"
        )
    text = f"Indication: {clinical_context}\n\n{findings}" if clinical_context else findings
    triage = importlib.import_module("inference.report.triage")
    opinion: Triage = triage.interpret(text, client)
    return opinion


def _style(given: PathLike | PromptStyle | None, directory: Path) -> PromptStyle:
    if isinstance(given, PromptStyle):
        return given
    file = Path(given) if given is not None else directory / PROMPT_FILE
    if given is not None or file.is_file():
        return PromptStyle.read(file)
    log.warning("prompt_wording_not_given")
    style, system = PromptStyle.default(), official.read_system_prompt(directory)
    return replace(style, system=system) if system else style
