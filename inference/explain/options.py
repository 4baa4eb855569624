"""How much an explanation may cost; without the libraries that make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ExplainOptions:
    """The budget of one study's explanation.

    Attributes:
        samples: variants of each series.
        series: series explained at most, those that matter most first; 0 = all.
        findings: findings explained at most, most probable first; 0 = all that are present.
        seconds: after which no further variant is begun; what was sampled by then is fitted.
        features_per_sample: groups of tokens at most, as a share of the samples; 0 = every token
            stands for itself, as published.
    """

    samples: int = 200
    series: int = 2
    findings: int = 5
    seconds: float = float("inf")
    features_per_sample: float = 0.5

    def features(self, tokens: int) -> int:
        """Groups that so many tokens may form."""
        if not self.features_per_sample:
            return tokens
        return max(1, min(tokens, int(self.samples * self.features_per_sample)))


PUBLISHED = ExplainOptions(samples=1000, series=0, findings=0, features_per_sample=0.0)
"""The sampling of the published notebook, on every series in turn."""
