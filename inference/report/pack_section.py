"""The [report] section of a pack.toml: connector, language model, wording and their quirks."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass

from inference.manifest import ModelFiles
from inference.toml_tables import Table


class Transport(enum.StrEnum):
    """How visual tokens reach a language model behind HTTP."""

    #: the whole prompt as embeddings: needed where the prompt is not the model's own chat form
    PROMPT_EMBEDS = "prompt_embeds"
    #: visual tokens alone; the server writes the prompt around them
    CHAT = "chat"


@dataclass(frozen=True)
class ReportSection:
    """What a pack says about drafting.

    Attributes:
        connector: its configuration and weights.
        language_model: directory of the language model in Hugging Face's layout.
        prompt: file with the wording that the language model was trained with.
        transport: towards a server; in this process the prompt is always embeddings.
        empty_assistant_turn: the prompt ends with an assistant turn that is closed already.
        rounded_buffers: rotary frequencies and position codes are rounded to bfloat16.
    """

    connector: ModelFiles
    language_model: str
    prompt: str
    transport: Transport = Transport.PROMPT_EMBEDS
    empty_assistant_turn: bool = False
    rounded_buffers: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """The files that every such pack has; a language model has more."""
        own = (f"{self.language_model}/{name}" for name in ("config.json", "tokenizer.json"))
        return (self.connector.config, self.connector.weights, self.prompt, *own)


def read(table: Table) -> ReportSection:
    """Read the section.

    Raises:
        PackError: a key is missing, unknown or wrong; the message names it.
    """
    connector = table.sub("connector")
    section = ReportSection(
        connector=ModelFiles(config=connector.path("config"), weights=connector.path("weights")),
        language_model=table.path("language_model"),
        prompt=table.path("prompt"),
        transport=Transport(table.choice("transport", tuple(Transport), Transport.PROMPT_EMBEDS)),
        empty_assistant_turn=table.take("empty_assistant_turn", bool, False),
        rounded_buffers=table.take("rounded_buffers", bool, False),
    )
    connector.end()
    table.end()
    return section


def write(section: ReportSection) -> list[str]:
    """Lines of TOML that `read` reads back."""
    values = {
        "language_model": section.language_model,
        "prompt": section.prompt,
        "transport": str(section.transport),
        "empty_assistant_turn": section.empty_assistant_turn,
        "rounded_buffers": section.rounded_buffers,
    }
    connector = vars(section.connector)
    # TOML's basic strings and booleans are written as JSON writes them.
    return [
        "",
        "[report]",
        *(f"{key} = {json.dumps(value)}" for key, value in values.items()),
        "",
        "[report.connector]",
        *(f"{key} = {json.dumps(value)}" for key, value in connector.items()),
    ]
