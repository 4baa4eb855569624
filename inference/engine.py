"""Owns the device and the loaded packs: studies go in, findings come out, alone or together."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from inference import devices, packs, registry
from inference.errors import (
    DeviceError,
    InferenceError,
    NotAvailableError,
    OutOfMemoryError,
    PackError,
)
from inference.findings import Findings, Status
from inference.study import StudyInput

if TYPE_CHECKING:
    from inference.explain.options import ExplainOptions
    from inference.report.tokens import VisualTokens

log = structlog.get_logger(__name__)

Progress = Callable[[str], None]
SMALLER = (1.0, 0.25)
"""Shares of the usual batch to try before a study is too large for the device."""


TOO_LARGE = "the study does not fit the device's memory"


@dataclass(frozen=True)
class Pack:
    """A pack the engine can use: its folder and what its manifest says."""

    directory: Path
    manifest: packs.Manifest


class Engine:
    """Resident models; safe to call from several threads, which then take turns."""

    def __init__(self, packs: Sequence[Path], device: str = "auto") -> None:
        """Read the manifests; weights are verified and loaded by the first study of each pack.

        Raises:
            PackError: a folder is no pack, its family is unknown, or two packs share a name.
            DeviceError: the device asked for is not there.
        """
        self._packs = _read_packs(packs)
        self._device = devices.choose(device)
        self._loaded: dict[str, Any] = {}
        self._lock = threading.Lock()

    def pack(self, name: str) -> Pack:
        """The pack of this name.

        Raises:
            PackError: the engine was not given it.
        """
        if name not in self._packs:
            known = ", ".join(sorted(self._packs)) or "none"
            raise PackError(f"pack {name!r} is not installed; installed: {known}")
        return self._packs[name]

    def analyse(
        self, study: StudyInput, pack_name: str, progress: Progress | None = None
    ) -> Findings:
        """Analyse one study; a study that cannot be analysed gets a result that says why.

        Raises:
            PackError: the pack is missing, altered or does not fit its own description.
            DeviceError: the device failed; a restarted process may succeed.
        """
        pack = self.pack(pack_name)
        started = time.monotonic()
        with self._lock:
            model = self._load(pack, progress)
            loaded_s = time.monotonic() - started
            findings = self._attempts(study, pack, model, progress)
            total_s = time.monotonic() - started
        return self._timed(findings, loaded_s, total_s)

    def analyse_many(
        self, studies: Sequence[StudyInput], pack_name: str, progress: Progress | None = None
    ) -> list[Findings]:
        """Analyse several studies, in shared passes where the family can; findings in order.

        Each study gets what it would get alone, within float rounding. One that cannot be analysed
        gets a result that says why, and costs the others nothing but time.

        Raises:
            PackError: the pack is missing, altered or does not fit its own description.
            DeviceError: the device failed; a restarted process may succeed.
        """
        pack = self.pack(pack_name)
        started = time.monotonic()
        with self._lock:
            model = self._load(pack, progress)
            loaded_s = time.monotonic() - started
            found = self._together(studies, pack, model, progress)
        return [self._timed(one, loaded_s, loaded_s + sum(one.timings_s.values())) for one in found]

    def explain(
        self,
        study: StudyInput,
        pack_name: str,
        findings: Findings,
        options: ExplainOptions,
        progress: Progress | None = None,
    ) -> Findings:
        """The findings of `analyse` with groundings that cost more than the analysis itself.

        Unchanged for families that have none to add. What `progress` raises ends it.

        Raises:
            OutOfMemoryError: the study does not fit the device's memory.
            InferenceError: the pack is missing, or the study cannot be read any more.
        """
        pack = self.pack(pack_name)
        target = registry.family(pack.manifest.family).explain
        if not target:
            return findings
        tell = progress or (lambda _text: None)
        with self._lock:
            model = self._load(pack, progress)
            found: Findings = self._within_memory(
                "explanation_out_of_memory",
                lambda scale: registry.resolve(target)(
                    study, model, findings, options, tell, scale
                ),
            )
        return found

    def visual_tokens(
        self, study: StudyInput, pack_name: str, progress: Progress | None = None
    ) -> VisualTokens:
        """What a drafting language model is shown of a study; for packs with a [report] section.

        Raises:
            NotAvailableError: this installation cannot make them.
            OutOfMemoryError: the study does not fit the device's memory.
            InferenceError: the pack drafts no reports, or nothing of the study can be read.
        """
        pack = self.pack(pack_name)
        make = _visual_tokens()
        with self._lock:
            model = self._load(pack, progress)
            tokens: VisualTokens = self._within_memory(
                "visual_tokens_out_of_memory",
                lambda scale: make(study, model, self._device, progress, scale),
            )
        return tokens

    def _within_memory(self, event: str, make: Callable[[float], Any]) -> Any:
        """What `make` gives, with smaller and smaller batches while memory runs out."""
        for scale in SMALLER:
            try:
                return make(scale)
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                devices.release_memory(self._device)
                log.warning(event, share=scale)
        raise OutOfMemoryError(TOO_LARGE)

    def _timed(self, findings: Findings, loaded_s: float, total_s: float) -> Findings:
        timings = {**findings.timings_s, "load": round(loaded_s, 3), "total": round(total_s, 3)}
        return replace(findings, timings_s=timings, device=devices.describe(self._device))

    def _load(self, pack: Pack, progress: Progress | None) -> Any:
        name = pack.manifest.name
        if name not in self._loaded:
            if progress is not None:
                progress(f"loading pack {name}")
            packs.verify(pack.directory)
            functions = registry.family(pack.manifest.family)
            load, _ = registry.resolve(functions.load), registry.resolve(functions.analyse)
            self._loaded[name] = load(pack.directory, pack.manifest, self._device)
            log.info("pack_loaded", pack=name, version=pack.manifest.version)
        return self._loaded[name]

    def _together(
        self, studies: Sequence[StudyInput], pack: Pack, model: Any, progress: Progress | None
    ) -> list[Findings]:
        """One outcome a study; memory that ran out is tried again for the study alone."""
        target = registry.family(pack.manifest.family).analyse_many
        if not target or len(studies) < 2:
            return [self._attempts(study, pack, model, progress) for study in studies]
        try:
            outcomes = registry.resolve(target)(studies, model, self._device, progress, 1.0)
        except (PackError, DeviceError):
            raise
        except Exception as error:  # noqa: BLE001  the edge, as in `_attempts`: each study alone
            _refuse_broken(error)
            log.error("analysis_of_many_failed", error=type(error).__name__, at=_place(error))
            outcomes = [MemoryError()] * len(studies)
        return [
            self._settle(study, outcome, pack, model, progress)
            for study, outcome in zip(studies, outcomes, strict=True)
        ]

    def _settle(
        self,
        study: StudyInput,
        outcome: Findings | Exception,
        pack: Pack,
        model: Any,
        progress: Progress | None,
    ) -> Findings:
        if isinstance(outcome, Findings):
            return outcome
        if devices.is_out_of_memory(outcome):
            devices.release_memory(self._device)
            return self._attempts(study, pack, model, progress)
        return _failure(study, pack, outcome)

    def _attempts(
        self, study: StudyInput, pack: Pack, model: Any, progress: Progress | None
    ) -> Findings:
        analyse = registry.resolve(registry.family(pack.manifest.family).analyse)
        for scale in SMALLER:
            try:
                result: Findings = analyse(study, model, self._device, progress, scale)
            except Exception as error:  # noqa: BLE001
                # The edge: whatever one study provokes must not end the process that serves all.
                if not devices.is_out_of_memory(error):
                    return _failure(study, pack, error)
                devices.release_memory(self._device)
                log.warning("analysis_out_of_memory", share=scale)
            else:
                return result
        return _failed(study, pack, TOO_LARGE)


def _read_packs(directories: Sequence[Path]) -> dict[str, Pack]:
    found: dict[str, Pack] = {}
    for directory in directories:
        manifest = packs.load_manifest(directory)
        registry.family(manifest.family)
        if manifest.name in found:
            raise PackError(f"two packs are named {manifest.name!r}; configure one of them")
        found[manifest.name] = Pack(directory, manifest)
    return found


def _visual_tokens() -> Callable[..., Any]:
    try:
        return registry.resolve(registry.VISUAL_TOKENS)
    except (ImportError, AttributeError) as error:
        raise NotAvailableError(
            "visual tokens: this version cannot make them; reports are drafted from findings"
        ) from error


def _failure(study: StudyInput, pack: Pack, error: Exception) -> Findings:
    """The result of a study whose analysis raised; what is not the study's fault is raised."""
    if isinstance(error, (PackError, DeviceError)):
        raise error
    if isinstance(error, InferenceError):
        return _failed(study, pack, str(error))
    _refuse_broken(error)
    log.error("analysis_failed", error=type(error).__name__, at=_place(error))
    return _failed(study, pack, f"unexpected {type(error).__name__} in the model")


def _refuse_broken(error: Exception) -> None:
    if devices.is_broken(error):
        raise DeviceError(
            "the GPU failed during the analysis; restart the process, then the driver"
        ) from error


def _place(error: Exception) -> str:
    """Where an error was raised; its text stays out of the log, for it may hold anything."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}"


def _failed(study: StudyInput, pack: Pack, reason: str) -> Findings:
    return Findings(
        study_uid=study.study_uid, status=Status.FAILED, pack=pack.manifest.ref, reason=reason
    )
