"""What the language model is shown of the images: Q projected tokens for each series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.report.errors import PromptError

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
