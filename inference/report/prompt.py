"""The prompt around the visual tokens: its wording, which is data of a pack, and its ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.errors import PackError
from inference.report.errors import PromptError
from inference.report.vocabulary import Vocabulary

# Shapes: T tokens after splicing, H width of the language model.

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
DEFAULT_STYLE = "prompt_default.json"
IGNORED = -100
"""Label of a token that is given, not learned."""

# Chat markup of the Qwen family, which the vision tokens of a style belong to as well.
TURN, TURN_END = "<|im_start|>{role}\n", "<|im_end|>\n"


@dataclass(frozen=True)
class PromptStyle:
    """The wording of a prompt; a fine-tuned checkpoint was trained with exactly one.

    Attributes:
        system: text of the system turn.
        instruction: first line of the user's turn, after the images.
        indication: line with the indication in place of ``{indication}``; left out without one.
        answer_format: last line of the user's turn.
        image: what stands for one series; holds `image_token` once.
        image_token: the token whose place the visual tokens take.
        max_tokens: the prompt is cut at so many tokens, before splicing.
    """

    system: str
    instruction: str
    indication: str
    answer_format: str
    image: str = "<|vision_start|><|image_pad|><|vision_end|>"
    image_token: str = "<|image_pad|>"  # noqa: S105 - a token of a vocabulary, no secret
    max_tokens: int = 2048

    @staticmethod
    def read(path: Path) -> PromptStyle:
        """Read the prompt file of a pack.

        Raises:
            PackError: the file is missing or does not hold exactly these keys.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PackError(f"{path.name}: prompt file cannot be read; restore the pack") from error
        return _style(text, path.name)

    @staticmethod
    def default() -> PromptStyle:
        """Our own wording, for language models that were not trained with another."""
        file = resources.files("inference.report").joinpath(DEFAULT_STYLE)
        return _style(file.read_text(encoding="utf-8"), DEFAULT_STYLE)


@dataclass(frozen=True, eq=False)
class PromptEmbeddings:
    """A whole prompt as a language model reads it, visual tokens in place, on the host.

    Attributes:
        embeds: float32 [T, H], contiguous and owned by this value alone.
        ids: int64 [T]; the image token's id at every place of a visual token.
    """

    embeds: Float32
    ids: Int64

    def __post_init__(self) -> None:
        if self.embeds.ndim != 2 or self.ids.shape != self.embeds.shape[:1]:
            raise PromptError(
                f"a prompt of {list(self.ids.shape)} ids has embeddings {list(self.embeds.shape)}"
            )


@dataclass(frozen=True, eq=False)
class PromptWriter:
    """Writes prompts of one style with the vocabulary of one language model.

    Attributes:
        style: the wording.
        vocabulary: of the language model.
        empty_assistant_turn: end the prompt with an assistant turn that is already closed. The
            reference does so by accident; models trained after it continue after that turn.
    """

    style: PromptStyle
    vocabulary: Vocabulary
    empty_assistant_turn: bool = False

    @property
    def image_id(self) -> int:
        """Id whose places the visual tokens take."""
        return self.vocabulary.id_of(self.style.image_token)

    def ids(self, series: int, indication: str = "") -> list[int]:
        """Ids of a prompt for this many series, before splicing; cut at the style's length."""
        answer = TURN_END if self.empty_assistant_turn else ""
        segments = (*self._given(series, indication), answer)
        return [i for part in segments for i in self.vocabulary.encode(part)][
            : self.style.max_tokens
        ]

    def taught(
        self, series: int, indication: str = "", answer: str = ""
    ) -> tuple[list[int], list[int]]:
        """Ids with their labels for training: only the answer and its end are learned."""
        given = [
            i for part in self._given(series, indication) for i in self.vocabulary.encode(part)
        ]
        learned = self.vocabulary.encode(answer + TURN_END)
        limit = self.style.max_tokens
        return (given + learned)[:limit], ([IGNORED] * len(given) + learned)[:limit]

    def _given(self, series: int, indication: str) -> tuple[str, str, str]:
        """System turn, user's turn and the head of the assistant's, encoded one by one."""
        lines = [self.style.image * series + self.style.instruction]
        if indication:
            lines.append(self.style.indication.replace("{indication}", plain(indication)))
        lines.append(self.style.answer_format)
        return (
            TURN.format(role="system") + self.style.system + TURN_END,
            TURN.format(role="user") + "\n".join(lines) + TURN_END,
            TURN.format(role="assistant"),
        )


def plain(text: str) -> str:
    """Text from outside in which no special token can hide: it must not open a turn or an image."""
    return text.replace("<|", "< |")


def _style(text: str, name: str) -> PromptStyle:
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise PackError(f"{name}: prompt file is no JSON ({error}); restore it") from error
    if not isinstance(data, Mapping):
        raise PackError(f"{name}: prompt file holds no JSON object; restore it")
    known = {field.name: field for field in fields(PromptStyle)}
    if unknown := sorted(set(data) - set(known)):
        raise PackError(f"{name}: unknown keys {unknown} in the prompt file; remove them")
    try:
        style = PromptStyle(**data)
    except TypeError as error:
        raise PackError(f"{name}: the prompt file lacks a key ({error})") from error
    _check(style, name)
    return style


def _check(style: PromptStyle, name: str) -> None:
    for field in fields(style):
        value = getattr(style, field.name)
        wanted = int if field.name == "max_tokens" else str
        if type(value) is not wanted:
            raise PackError(f"{name}: {field.name} is {value!r}, expected {wanted.__name__}")
    if style.image.count(style.image_token) != 1:
        raise PackError(f"{name}: image must hold {style.image_token} exactly once")
    if "{indication}" not in style.indication:
        raise PackError(f"{name}: indication must hold {{indication}} where the text goes")
    if style.max_tokens < 1:
        raise PackError(f"{name}: max_tokens is {style.max_tokens}, expected at least 1")
