"""Which conversations an optimizer step teaches, written, read and padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import structlog
import torch

from inference.report.prompt import PromptWriter
from inference.report.splicing import collate
from training import loop
from training.data.shards import Cache
from training.instruction.conversations import Conversation, taught
from training.instruction.network import Lesson, on_device
from training.probes.features import StudyFeatures
from training.runtime import Place, RunError

log = structlog.get_logger(__name__)


class Lessons:
    """All conversations of a run.

    Attributes:
        features: of every study in `studies`; given before the first step.
        lengths: tokens of each series, by study.
        studies: those that are taught about.
    """

    features: Mapping[str, StudyFeatures]

    def __init__(
        self,
        cache: Cache,
        conversations: Sequence[Conversation],
        writer: PromptWriter,
        pad: int,
        passes: tuple[int, int],
        seed: int,
        place: Place,
    ) -> None:
        """Write every conversation that can be taught.

        Args:
            cache: of tokens; says how many series a study has.
            conversations: those of studies that it lacks are left out.
            writer: of the style that is taught.
            pad: id of the padding.
            passes: conversations of a pass, passes of an optimizer step.
            seed: of the order.
            place: this process.

        Raises:
            RunError: none can be taught.
        """
        self._pad, self._place = pad, place
        self._size, accumulate = passes
        self.per_step = self._size * accumulate
        self.lengths = {
            name: tuple(one.count for one in study.series) for name, study in cache.studies.items()
        }
        given = [one for one in conversations if one.study in self.lengths]
        written = [(c.study, taught(writer, len(self.lengths[c.study]), c)) for c in given]
        self._items = [(study, ids) for study, ids in written if ids is not None]
        left_out = len(conversations) - len(self._items)
        if left_out:
            log.warning("conversations_left_out", count=left_out)
        if not self._items:
            raise RunError(
                "no conversation can be taught: their studies are not in the cache, or their "
                "images exceed the style's max_tokens"
            )
        self.studies = sorted({study for study, _ in self._items})
        self._picks = loop.epochs(len(self._items), self.per_step, seed, place)

    def steps(self, epochs: int) -> int:
        """Optimizer steps of so many epochs."""
        per_epoch = max(1, len(self._items) // (self.per_step * self._place.world))
        return per_epoch * epochs

    def of(self, step: int, _: np.random.Generator) -> list[Lesson]:
        """The passes of a step."""
        numbers, size = self._picks(step), self._size
        parts = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        return [on_device(self._lesson(part), self._place.device) for part in parts]

    def _lesson(self, numbers: Sequence[int]) -> Lesson:
        studies = [self._items[i][0] for i in numbers]
        written = [self._items[i][1] for i in numbers]
        return Lesson(
            features=tuple(
                torch.from_numpy(np.array(self.features[name].features)) for name in studies
            ),
            lengths=tuple(self.lengths[name] for name in studies),
            prompts=collate(
                [ids for ids, _ in written], self._pad, labels=[labels for _, labels in written]
            ),
        )
