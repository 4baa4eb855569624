"""Connector and language model; the forward pass is the loss on the answers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.report.connector import VisionConnector
from inference.report.prompt import IGNORED
from inference.report.splicing import PromptBatch, splice


@dataclass(frozen=True, eq=False)
class Lesson:
    """Some studies and what is taught about them.

    Attributes:
        features: [N, V] of each study, by the frozen encoder.
        lengths: tokens of each of its series.
        prompts: ids, true mask and labels.
    """

    features: tuple[Tensor, ...]
    lengths: tuple[tuple[int, ...], ...]
    prompts: PromptBatch


class InstructionLoss(nn.Module):
    """Cross-entropy of the answers' tokens, each from all that stands before it."""

    def __init__(self, connector: VisionConnector, language_model: Any, image_id: int) -> None:
        super().__init__()
        self.connector = connector
        self.language_model = language_model
        self._image_id = image_id

    def forward(self, lesson: Lesson) -> tuple[Tensor, dict[str, float]]:
        """Mean over the learned tokens, and how many they are."""
        visual = self.show(lesson.features, lesson.lengths)
        embed = self.language_model.get_input_embeddings()
        spliced = splice(lesson.prompts, visual, embed, self._image_id)
        answer = self.language_model(
            inputs_embeds=spliced.embeds, attention_mask=spliced.mask, use_cache=False
        )
        logits = answer.logits[:, :-1].float().flatten(0, 1)
        labels = spliced.labels[:, 1:].flatten()
        loss = functional.cross_entropy(logits, labels, ignore_index=IGNORED)
        return loss, {"learned_tokens": float((labels != IGNORED).sum())}

    def show(self, features: Sequence[Tensor], lengths: Sequence[Sequence[int]]) -> list[Tensor]:
        """[S, Q, D] of each study."""
        device = self.connector.perceiver.queries.device
        pairs = zip(features, lengths, strict=True)
        return [self.connector(one.to(device).float(), sizes) for one, sizes in pairs]


def prepare_language_model(model: Any, *, learns: bool, rank: int, alpha: int, drop: float) -> Any:
    """The language model as a stage trains it: frozen, whole, or with low-rank additions.

    Args:
        model: of transformers.
        learns: False = frozen.
        rank: of the additions to every linear layer (peft's LoRA); 0 = the whole model learns.
        alpha: weight of the additions, divided by `rank`.
        drop: dropout before them.

    Raises:
        RunError: peft is not installed.
    """
    if not learns:
        return model.requires_grad_(False)
    if not rank:
        return model.requires_grad_(True)
    from training.runtime import RunError

    try:
        import peft
    except ImportError as error:
        raise RunError("LoRA needs peft: install the extra 'train'") from error
    settings = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=drop, target_modules="all-linear", bias="none",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one library about the other's old names
        made: Any = peft.get_peft_model(model.requires_grad_(False), settings)
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # additions learn in full precision
    return made


def merged(model: Any) -> Any:
    """The language model with low-rank additions merged in, if it has any."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def is_learned(module: nn.Module) -> frozenset[str]:
    """Names of the parameters that gradients move."""
    return frozenset(name for name, p in module.named_parameters() if p.requires_grad)


def learned(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that gradients move."""
    return [p for p in module.parameters() if p.requires_grad]


def on_device(lesson: Lesson, device: torch.device) -> Lesson:
    """The lesson where the model is."""
    return Lesson(
        tuple(one.to(device) for one in lesson.features),
        lesson.lengths,
        lesson.prompts.to(device),
    )
