"""What the language model is shown of the images: Q projected tokens for each series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference.report.errors import PromptError

if TYPE_CHECKING:
    import torch

    from inference.neurovfm.loading import LoadedPack
    from inference.study import StudyInput

# Shapes: S series, Q queries of the connector, D width of the language model.

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """A study's visual tokens, on the host.

    Attributes:
        series: SeriesInstanceUID behind each block of tokens. A CT volume is shown once for each
            of its three windows, so a UID can occur several times.
        tokens: float32 [S, Q, D], contiguous and owned by this value alone.
    """

    series: tuple[str, ...]
    tokens: Float32

    def __post_init__(self) -> None:
        tokens = self.tokens
        if tokens.ndim != 3 or tokens.dtype != np.float32 or len(tokens) != len(self.series):
            raise PromptError(
                f"visual tokens are {tokens.dtype} {list(tokens.shape)} for {len(self.series)} "
                "series; expected float32 [series, queries, width]"
            )

    @property
    def queries(self) -> int:
        """Tokens of one series."""
        return int(self.tokens.shape[1])

    @property
    def width(self) -> int:
        """Width of the language model they were projected for."""
        return int(self.tokens.shape[2])


def visual_tokens(
    study: StudyInput,
    pack: LoadedPack,
    device: torch.device,
    progress: Callable[[str], None] | None = None,
    scale: float = 1.0,
) -> VisualTokens:
    """The visual tokens of a study's readable series, in their order.

    Args:
        study: the files.
        pack: loaded, with a [report] section.
        device: where the pack was loaded.
        progress: called with a short text at every step.
        scale: share of the usual token budget, for a device with little memory left.

    Raises:
        PackError: the pack drafts no reports.
        VolumeError: nothing of the study can be read.
        OutOfMemoryError: not even the smallest batch fits.
    """
    from inference.report import viewing  # torch and the readers, which a drafter does without

    return viewing.view(study, pack, device, progress or (lambda _: None), scale)
