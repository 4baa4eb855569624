"""The published pipeline: a study directory in, `{study}_predictions.json` out.

Same numbers, without its crashes; docs/parity.md lists where it parts from the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from inference import devices
from inference.prima import analyse, predictions
from inference.prima.config import PipelineConfig
from inference.prima.loading import OfficialModels, load_official
from inference.prima.preparation import prepare_official
from inference.prima.series import PrimaStudy
from inference.stopwatch import Stopwatch

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run gave.

    Attributes:
        predictions: what the file holds.
        file: where it was written.
        study: the series that were read, and those that were not.
        timings_s: seconds of each step.
    """

    predictions: predictions.Document
    file: Path
    study: PrimaStudy
    timings_s: dict[str, float]


def run(config: PipelineConfig, progress: Progress | None = None) -> Outcome:
    """Read the study, run the models, write the predictions.

    Raises:
        NoVolumeError: no series of the study can be read.
        PackError: a checkpoint is damaged, forged or does not fit its configuration.
        DeviceError: the device is not there.
        OutOfMemoryError: the study does not fit the device's memory.
    """
    tell = progress or (lambda _: None)
    clock = Stopwatch()
    device = devices.choose(config.device)
    tell(f"loading the models onto {device}")
    models = load_official(config.model, config.tokenizer, config.tokenizer_weights, device)
    clock.lap("load")
    study = prepare_official(config.study_dir, config.study_description, tell)
    clock.lap("read")
    result = predict(study, models, tell, clock)
    predictions.write(result, config.predictions_file)
    return Outcome(result, config.predictions_file, study, clock.laps)


def predict(
    study: PrimaStudy,
    models: OfficialModels,
    progress: Progress | None = None,
    clock: Stopwatch | None = None,
) -> predictions.Document:
    """The predictions of a prepared study, in the published layout."""
    clock = clock or Stopwatch()
    found = analyse.run(study, models.tokenizer, models.model, progress)
    clock.lap("encode")
    result = document(found.embedding, models)
    clock.lap("heads")
    return result


def document(embedding: torch.Tensor, models: OfficialModels) -> predictions.Document:
    """What the heads say of an embedding, thresholds taken off."""
    answers = models.model.heads(embedding)
    return predictions.document(
        diagnosis=_scores(answers.diagnoses, models.diagnoses),
        referral=_scores(answers.referral, models.referrals),
        priority=_scores(answers.priority, dict.fromkeys(models.levels, 0.0)),
        clip_emb=embedding.float().cpu().tolist(),
    )


def _scores(answer: torch.Tensor | None, thresholds: Mapping[str, float]) -> dict[str, float]:
    if answer is None:
        return {}
    pairs = zip(thresholds.items(), answer.tolist(), strict=True)
    return {name: score - threshold for (name, threshold), score in pairs}
