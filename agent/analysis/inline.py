"""The engine in this process, under the names that configuration gives its packs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference.engine import Engine
    from inference.explain.options import ExplainOptions
    from inference.findings import Findings
    from inference.report.tokens import VisualTokens
    from inference.study import StudyInput

Progress = Callable[[str], None]


class InlineEngine:
    """The interface of the inference process, here: for `analyze`, tests and the child itself."""

    alive = True
    restarts = 0

    def __init__(self, packs: Mapping[str, Path], device: str) -> None:
        self._packs = dict(packs)
        self._device = device
        self._engine: Engine | None = None
        self._names: dict[str, str] = {}

    def start(self) -> None:
        """Load nothing yet; packs are loaded by the first study that needs them."""

    def revive(self) -> None:
        """Nothing to replace."""

    def stop(self) -> None:
        """Nothing to end."""

    def analyse(self, study: StudyInput, pack: str, progress: Progress | None = None) -> Findings:
        """Analyse one study here.

        Raises:
            InferenceError: a pack or the device cannot be used.
        """
        return self._ready().analyse(study, self._names[pack], progress)

    def analyse_many(
        self, studies: Sequence[StudyInput], pack: str, progress: Progress | None = None
    ) -> list[Findings]:
        """Analyse studies together here; findings in order.

        Raises:
            InferenceError: a pack or the device cannot be used.
        """
        return self._ready().analyse_many(studies, self._names[pack], progress)

    def analyse_aside(self, study: StudyInput, pack: str, seconds: float) -> Findings:
        """Analyse a study that no reader waits for; here nothing can interrupt it.

        Raises:
            InferenceError: a pack or the device cannot be used.
        """
        return self.analyse(study, pack)

    def explain(
        self,
        study: StudyInput,
        pack: str,
        findings: Findings,
        options: ExplainOptions,
        progress: Progress | None = None,
    ) -> Findings:
        """Findings with groundings that cost more than the analysis itself.

        Raises:
            InferenceError: a pack or the device cannot be used.
        """
        return self._ready().explain(study, self._names[pack], findings, options, progress)

    def visual_tokens(
        self, study: StudyInput, pack: str, progress: Progress | None = None
    ) -> VisualTokens:
        """What a language model is shown of a study.

        Raises:
            InferenceError: the pack drafts no reports, or the device cannot be used.
        """
        return self._ready().visual_tokens(study, self._names[pack], progress)

    def _ready(self) -> Engine:
        if self._engine is None:
            from inference import packs
            from inference.engine import Engine

            found = {key: packs.load_manifest(path).name for key, path in self._packs.items()}
            # one pack may be configured twice, say live for CT and in shadow mode for MR
            self._engine = Engine(list(dict.fromkeys(self._packs.values())), self._device)
            self._names = found
        return self._engine
