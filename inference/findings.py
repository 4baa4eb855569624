"""What the models answer: findings with probabilities, where they were seen, what was read.

`Findings` is a plain value. It round-trips through JSON (`to_json`, `from_json`) with its grounding
maps inside, so that composing the result objects after a restart needs no second GPU run.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT = 1
DIAGNOSIS = "diagnosis"
REFERRAL = "referral"
ATTENTION, LIME = "attention", "lime"


class Status(enum.StrEnum):
    """How the analysis ended (DICOM CID 6042, Summary of Analyses)."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    NOT_ATTEMPTED = "not_attempted"


class Acuity(enum.StrEnum):
    """How fast a human should look at a study with this finding."""

    URGENT = "urgent"
    ROUTINE = "routine"
    NORMAL = "normal"


@dataclass(frozen=True)
class Code:
    """A coded concept: value, coding scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class PackRef:
    """Which model made the result: shown wherever the result is shown."""

    name: str
    version: str
    digest: str
    """SHA-256 over the pack's manifest (which holds the SHA-256 of every file)."""
    licence: str
    notice: str
    """Research-use sentence of the pack."""


@dataclass(frozen=True)
class SeriesReport:
    """What became of one series: read, or skipped and why."""

    series_uid: str
    modality: str
    description: str
    used: bool
    reason: str = ""
    warnings: tuple[str, ...] = ()
    slices: int = 0


@dataclass(frozen=True)
class Grounding:
    """Where in a source series a finding was seen: saliency on the model's token grid.

    Attributes:
        series_uid: the source series.
        saliency: float32 [D, H, W], 0..1, 1 at the maximum; token grid of the preprocessed volume.
        grid_to_patient: float64 [4, 4]; maps homogeneous token-centre indices (d, h, w, 1) to
            DICOM patient coordinates (LPS, mm).
        threshold: saliency at or above which a voxel belongs to the finding's mask.
        key_sop_uid: SOP Instance UID of the source image that shows the finding best.
        key_frame: 1-based frame number in that instance (1 for single-frame images).
    """

    series_uid: str
    saliency: npt.NDArray[np.float32]
    grid_to_patient: npt.NDArray[np.float64]
    threshold: float
    key_sop_uid: str
    key_frame: int = 1
    method: str = ATTENTION
    """What the saliency is: the model's own attention, or tokens' share in a linear fit (LIME)."""
    fit: float | None = None
    """How well that fit predicts variants it has not seen (R2, 1 at best); None for attention."""


@dataclass(frozen=True)
class Finding:
    """One label of the pack with its probability; every label is reported, present or absent."""

    label: str
    display: str
    code: Code
    acuity: Acuity
    probability: float
    threshold: float
    site: Code | None = None
    grounding: Grounding | None = None
    score: float | None = None
    """Logit minus the label's own threshold, in families that publish it; 0 and above is present.
    """
    kind: str = DIAGNOSIS

    @property
    def present(self) -> bool:
        """As in the reference: NeuroVFM strictly above the threshold, Prima with score >= 0."""
        if self.score is not None:
            return self.score >= 0
        return self.probability > self.threshold


@dataclass(frozen=True)
class ModelPriority:
    """What a model's own priority head says: raw outputs of its levels, least urgent first."""

    levels: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def level(self) -> str:
        """The level with the highest output; the less urgent of equals, as in the reference."""
        return self.levels[self.scores.index(max(self.scores))]


@dataclass(frozen=True)
class Findings:
    """The whole answer for one study revision."""

    study_uid: str
    status: Status
    pack: PackRef
    findings: tuple[Finding, ...] = ()
    series: tuple[SeriesReport, ...] = ()
    reason: str = ""
    """Why the status is not SUCCEEDED; empty otherwise."""
    timings_s: dict[str, float] = field(default_factory=dict)
    device: str = ""
    model_priority: ModelPriority | None = None
    """The vote of the model's own priority head, where it has one."""

    @property
    def positives(self) -> tuple[Finding, ...]:
        """Diagnoses above threshold, most probable first; referrals are in `referrals`."""
        return _present(self.findings, DIAGNOSIS)

    @property
    def referrals(self) -> tuple[Finding, ...]:
        """Services the model would refer to, most probable first."""
        return _present(self.findings, REFERRAL)

    def to_json(self) -> str:
        """Serialise with grounding maps as zlib + base64 float16 (error below 0.0005 for 0..1)."""
        return json.dumps({"format": FORMAT, **_plain(self)}, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Findings:
        """Inverse of `to_json`.

        Raises:
            ValueError: the text was written by another format version.
        """
        data = json.loads(text)
        if data.get("format") != FORMAT:
            raise ValueError(
                f"findings of format {data.get('format')!r}; this version reads {FORMAT}"
            )
        return Findings(
            study_uid=data["study_uid"],
            status=Status(data["status"]),
            pack=PackRef(**data["pack"]),
            findings=tuple(_finding(f) for f in data["findings"]),
            series=tuple(
                SeriesReport(**{**s, "warnings": tuple(s["warnings"])}) for s in data["series"]
            ),
            reason=data["reason"],
            timings_s=data["timings_s"],
            device=data["device"],
            model_priority=_model_priority(data.get("model_priority")),
        )


def _present(findings: tuple[Finding, ...], kind: str) -> tuple[Finding, ...]:
    present = (f for f in findings if f.present and f.kind == kind)
    return tuple(sorted(present, key=lambda f: -f.probability))


def _plain(value: Any) -> Any:
    if isinstance(value, Grounding):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {
            **fields,
            "saliency": _pack_array(value.saliency),
            "grid_to_patient": value.grid_to_patient.tolist(),
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value


def _finding(data: dict[str, Any]) -> Finding:
    grounding = data["grounding"]
    if grounding is not None:
        grounding = Grounding(
            **{
                **grounding,
                "saliency": _unpack_array(grounding["saliency"]),
                "grid_to_patient": np.asarray(grounding["grid_to_patient"], dtype=np.float64),
            }
        )
    return Finding(
        **{
            **data,
            "code": Code(**data["code"]),
            "acuity": Acuity(data["acuity"]),
            "site": Code(**data["site"]) if data["site"] else None,
            "grounding": grounding,
        }
    )


def _model_priority(data: dict[str, Any] | None) -> ModelPriority | None:
    return ModelPriority(tuple(data["levels"]), tuple(data["scores"])) if data else None


def _pack_array(array: npt.NDArray[np.float32]) -> dict[str, Any]:
    raw = zlib.compress(np.ascontiguousarray(array, dtype="<f2").tobytes())
    return {"shape": list(array.shape), "data": base64.b64encode(raw).decode()}


def _unpack_array(data: dict[str, Any]) -> npt.NDArray[np.float32]:
    raw = zlib.decompress(base64.b64decode(data["data"]))
    return np.frombuffer(raw, dtype="<f2").reshape(data["shape"]).astype(np.float32)
