"""A causal language model in this process: loaded from local files, generating from embeddings.

Needs the extra `local`. Nothing is fetched and no code of a model directory is run.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from inference.errors import ConfigError, NotAvailableError, WeightsError
from inference.report.decoding import Decoding, JsonGuard, processors
from inference.report.vocabulary import Vocabulary

Float32 = npt.NDArray[np.float32]
CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"


@dataclass(frozen=True)
class Endings:
    """Ids that end an answer, and the padding after it."""

    eos: tuple[int, ...]
    pad: int


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A loaded language model.

    Attributes:
        model: of transformers.
        vocabulary: its tokenizer.
        endings: its end and padding tokens.
    """

    model: Any
    vocabulary: Vocabulary
    endings: Endings

    @staticmethod
    def load(
        directory: Path,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        rounded_buffers: bool = False,
    ) -> LanguageModel:
        """Load a Hugging Face model directory.

        Args:
            directory: with config.json, safetensors and tokenizer.json.
            device: None is the CPU.
            dtype: of weights and arithmetic.
            rounded_buffers: round the rotary frequencies to bfloat16, as the reference's cast of
                the whole model does.

        Raises:
            PackError: (ConfigError, WeightsError) a file is missing or does not fit, named.
            NotAvailableError: the transformers library is not installed.
        """
        if not (directory / CONFIG_FILE).is_file():
            # A path that is no directory would be taken for the name of a model on the hub.
            raise ConfigError(
                f"{directory.name}: no language model there, {CONFIG_FILE} is missing"
            )
        vocabulary = Vocabulary.load(directory)
        endings = read_endings(directory)
        model = _from_files(directory, dtype)
        if rounded_buffers:
            round_rotary(model)
        model = model.to(device or torch.device("cpu")).eval().requires_grad_(False)
        return LanguageModel(model, vocabulary, endings)

    @property
    def width(self) -> int:
        """Width of its embeddings."""
        return int(self.model.config.hidden_size)

    @property
    def positions(self) -> int:
        """Tokens it can hold, prompt and answer together."""
        return int(self.model.config.max_position_embeddings)

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of ids, in the model's precision."""
        found: Tensor = self.model.get_input_embeddings()(ids.to(self.model.device))
        return found

    def rows(self, ids: Sequence[int]) -> Float32:
        """Input embeddings of ids on the host, float32 [n, width]."""
        found: Float32 = self.embed(torch.tensor(ids, dtype=torch.long)).float().cpu().numpy()
        return found

    @torch.inference_mode()
    def logits(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """Scores of the token after each prompt, float32 [B, vocabulary]."""
        embeds, mask = self._placed(embeds, mask)
        answer = self.model(inputs_embeds=embeds, attention_mask=mask, logits_to_keep=1)
        scores: Tensor = answer.logits[:, -1].float().cpu()
        return scores

    @torch.inference_mode()
    def generate(
        self,
        embeds: Tensor,
        mask: Tensor,
        decoding: Decoding,
        schema: Mapping[str, Any] | None = None,
    ) -> list[list[int]]:
        """Answers to a batch of prompts, each up to and with its end token if it came to one.

        Args:
            embeds: [B, U, D] as `splicing.splice` makes them.
            mask: int64 [B, U].
            decoding: greedy or beams.
            schema: JSON schema that every answer follows; None leaves them free.
        """
        embeds, mask = self._placed(embeds, mask)
        steps = processors(decoding, mask)
        if schema is not None:
            size = int(self.model.config.vocab_size)
            steps.insert(0, JsonGuard(self.vocabulary, schema, self.endings.eos[0], size))
        out: Tensor = self.model.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            generation_config=self._settings(decoding),
            logits_processor=steps,
        )
        return [self._until_end(row) for row in out.tolist()]

    def ended(self, ids: Sequence[int]) -> bool:
        """Whether an answer came to its end by itself."""
        return bool(ids) and ids[-1] in self.endings.eos

    def _placed(self, embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        device = self.model.device
        return embeds.to(device=device, dtype=self.model.dtype), mask.to(device)

    def _settings(self, decoding: Decoding) -> Any:
        transformers: Any = importlib.import_module("transformers")
        return transformers.GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens,
            num_beams=decoding.beams,
            do_sample=False,
            length_penalty=decoding.length_penalty,
            eos_token_id=list(self.endings.eos),
            pad_token_id=self.endings.pad,
        )

    def _until_end(self, row: list[int]) -> list[int]:
        ends = [place for place, token in enumerate(row) if token in self.endings.eos]
        return row[: ends[0] + 1] if ends else row


def read_endings(directory: Path) -> Endings:
    """End and padding tokens of a model directory; its generation settings go first.

    Raises:
        ConfigError: neither file names an end token.
    """
    found: dict[str, Any] = {}
    for name in (CONFIG_FILE, GENERATION_FILE):
        file = directory / name
        if not file.is_file():
            continue
        try:
            read = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{name}: not JSON; fetch it again") from error
        found |= {
            k: read.get(k) for k in ("eos_token_id", "pad_token_id") if read.get(k) is not None
        }
    eos = found.get("eos_token_id")
    ends = tuple(eos) if isinstance(eos, list) else (eos,)
    if not ends or not all(isinstance(token, int) for token in ends):
        raise ConfigError(f"{directory.name}: {CONFIG_FILE} names no eos_token_id")
    pad = found.get("pad_token_id", ends[0])
    return Endings(ends, int(pad))


def round_rotary(model: nn.Module) -> int:
    """Round every rotary frequency table of a model to bfloat16 in place; how many there were."""
    count = 0
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name.endswith("inv_freq"):
                buffer.copy_(buffer.to(torch.bfloat16))
                count += 1
    return count


def _from_files(directory: Path, dtype: torch.dtype) -> Any:
    try:
        # Imported by name: most of the library carries no annotations.
        transformers: Any = importlib.import_module("transformers")
        progress: Any = importlib.import_module("transformers.utils.logging")
    except ImportError as error:
        raise NotAvailableError(
            "a language model in this process needs transformers: install worklist-agent[local], "
            "or configure a vLLM server"
        ) from error
    progress.disable_progress_bar()  # it writes to a terminal that a service does not have
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of third parties, about settings that we do not use
        try:
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                str(directory.resolve()),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise WeightsError(
                f"{directory.name}: the language model cannot be loaded ({type(error).__name__}); "
                "it must be safetensors of an architecture that transformers knows"
            ) from error
    faults = {kind: sorted(map(str, keys)) for kind, keys in report.items() if keys}
    if faults:
        raise WeightsError(f"{directory.name}: the language model's weights do not fit: {faults}")
    return model
