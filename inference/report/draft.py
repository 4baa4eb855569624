"""What a draft is: sentences with a verdict, who wrote them, and the triage that may follow.

A draft is never a report. It is unverified, for research use, and says which model wrote it.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass

from inference.findings import Acuity

FORMAT = 1


class Source(enum.StrEnum):
    """Who wrote a draft."""

    #: a language model that saw the image's tokens
    MODEL = "model"
    #: our own wording of the heads' findings; no language model took part
    TEMPLATE = "template"


class Verdict(enum.StrEnum):
    """What the guard says of a sentence."""

    UNCHECKED = "unchecked"
    SUPPORTED = "supported"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class ClinicalContext:
    """What the order and the header say about the examination; holds no identifier.

    Attributes:
        indication: reason for the examination, may be empty.
        age_years: age at the examination, None when unknown.
        sex: ``M``, ``F``, ``O`` or empty.
        modality: ``CT`` or ``MR``.
        body_part: as received, may be empty.
        series: descriptions of the series that were read.
        contrast: whether a contrast agent was given; None when the headers do not say.
    """

    modality: str
    indication: str = ""
    age_years: float | None = None
    sex: str = ""
    body_part: str = ""
    series: tuple[str, ...] = ()
    contrast: bool | None = None


@dataclass(frozen=True)
class Sentence:
    """One sentence of a draft.

    Attributes:
        text: as written by `Source`.
        verdict: of the guard.
        reason: why the sentence is unsupported; empty otherwise.
        labels: ids of the findings that support it; the page links them to their overlay.
    """

    text: str
    verdict: Verdict = Verdict.UNCHECKED
    reason: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A drafted set of findings for one study.

    Attributes:
        exam_type: what was examined, in the words of `source`.
        sentences: one finding each, in the order written; empty = nothing to report.
        source: a language model or our template.
        model: name and version of what wrote it, as shown to the reader.
        reason: why a template was used instead of a model; empty otherwise.
        seconds: time it took.
    """

    exam_type: str
    sentences: tuple[Sentence, ...]
    source: Source
    model: str
    reason: str = ""
    seconds: float = 0.0

    @property
    def unremarkable(self) -> bool:
        """Nothing was found to report."""
        return not self.sentences

    def to_json(self) -> str:
        """Serialize."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Draft:
        """Inverse of `to_json`.

        Raises:
            ValueError: the text was written by another format version.
        """
        data = json.loads(text)
        if data.pop("format", None) != FORMAT:
            raise ValueError(f"draft of another format; this version reads {FORMAT}")
        sentences = tuple(
            Sentence(s["text"], Verdict(s["verdict"]), s["reason"], tuple(s["labels"]))
            for s in data.pop("sentences")
        )
        return Draft(**{**data, "source": Source(data["source"])}, sentences=sentences)


@dataclass(frozen=True)
class Triage:
    """A reasoning model's opinion on how soon a study should be read.

    Attributes:
        level: urgent, routine or normal.
        reason: one sentence.
        model: name of the model that said so.
    """

    level: Acuity
    reason: str
    model: str
