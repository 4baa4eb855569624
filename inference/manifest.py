"""What a pack.toml says, as plain values: labels, heads, files, licence and notice."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.findings import Acuity, Code, PackRef

if TYPE_CHECKING:
    from inference.report.pack_section import ReportSection

MODALITIES = ("CT", "MR")


class HeadKind(enum.StrEnum):
    """What a head answers: findings, whom to refer to, or how soon to read."""

    DIAGNOSES = "diagnoses"
    REFERRAL = "referral"
    PRIORITY = "priority"


@dataclass(frozen=True)
class Label:
    """One output of a head.

    Attributes:
        id: stable identifier, e.g. ``intracranial_hemorrhage``.
        display: what a reader sees.
        threshold: probability strictly above which the finding is present.
        localized: whether saliency of this label points at a place worth showing.
        saliency_threshold: saliency at or above which a voxel belongs to the finding's mask.
        index: output of the label's own network that answers it; None where one network answers
            all labels in their order.
    """

    id: str
    display: str
    acuity: Acuity
    threshold: float
    code: Code
    localized: bool = True
    site: Code | None = None
    saliency_threshold: float = 0.5
    index: int | None = None


@dataclass(frozen=True)
class ModelFiles:
    """A model's configuration and weights, relative to the pack."""

    config: str
    weights: str


@dataclass(frozen=True)
class Head:
    """A head: for which modality, its files, its labels (or priority levels) in output order."""

    name: str
    modality: str
    files: ModelFiles
    labels: tuple[Label, ...]
    kind: HeadKind = HeadKind.DIAGNOSES
    levels: tuple[str, ...] = ()
    """Priority heads only: names of the outputs, least urgent first."""


@dataclass(frozen=True)
class PackFile:
    """A file of the pack and what it must be."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a pack.toml says. `digest` is the SHA-256 of the file itself."""

    name: str
    version: str
    family: str
    title: str
    licence: str
    notice: str
    encoder: ModelFiles
    heads: tuple[Head, ...]
    created: dt.date
    research_only: bool = True
    demonstration: bool = False
    origin: str = ""
    """What the weights were made from and what was left out, one sentence; for the record."""
    tokenizer: ModelFiles | None = None
    """Turns patches into tokens for the encoder, in families that keep the two apart."""
    report: ReportSection | None = None
    """Connector and language model of packs that draft findings; such a pack may have no head."""
    files: tuple[PackFile, ...] = ()
    digest: str = ""

    @property
    def ref(self) -> PackRef:
        """How results name this pack."""
        return PackRef(self.name, self.version, self.digest, self.licence, self.notice)

    @property
    def model_files(self) -> tuple[str, ...]:
        """Every file that a model of the pack is loaded from."""
        tokenizer = (self.tokenizer,) if self.tokenizer else ()
        models = (self.encoder, *tokenizer, *(head.files for head in self.heads))
        drafting = self.report.files if self.report else ()
        return (*(name for files in models for name in (files.config, files.weights)), *drafting)

    def head_for(self, modality: str, kind: HeadKind = HeadKind.DIAGNOSES) -> Head | None:
        """The head that reads a modality and answers this kind of question, or None."""
        fits = (h for h in self.heads if h.modality == modality and h.kind is kind)
        return next(fits, None)
