"""Owns the device and the loaded packs: studies go in, findings come out, one at a time."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from inference import devices, packs, registry
from inference.errors import DeviceError, InferenceError, OutOfMemoryError, PackError
from inference.findings import Findings, Status
from inference.study import StudyInput

log = structlog.get_logger(__name__)

Progress = Callable[[str], None]
SMALLER = (1.0, 0.25)
"""Shares of the usual batch to try before a study is too large for the device."""


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
        timings = {**findings.timings_s, "load": round(loaded_s, 3)}
        timings["total"] = round(time.monotonic() - started, 3)
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

    def _attempts(
        self, study: StudyInput, pack: Pack, model: Any, progress: Progress | None
    ) -> Findings:
        analyse = registry.resolve(registry.family(pack.manifest.family).analyse)
        for scale in SMALLER:
            try:
                result: Findings = analyse(study, model, self._device, progress, scale)
            except (OutOfMemoryError, MemoryError):
                devices.release_memory(self._device)
                log.warning("analysis_out_of_memory", share=scale)
            except (PackError, DeviceError):
                raise
            except InferenceError as error:
                return _failed(study, pack, str(error))
            except Exception as error:
                # The edge: whatever one study provokes must not end the process that serves all.
                if devices.is_broken(error):
                    raise DeviceError(
                        "the GPU failed during the analysis; restart the process, then the driver"
                    ) from error
                log.error("analysis_failed", error=type(error).__name__, at=_place(error))
                return _failed(study, pack, f"unexpected {type(error).__name__} in the model")
            else:
                return result
        return _failed(study, pack, "the study does not fit the device's memory")


def _read_packs(directories: Sequence[Path]) -> dict[str, Pack]:
    found: dict[str, Pack] = {}
    for directory in directories:
        manifest = packs.load_manifest(directory)
        registry.family(manifest.family)
        if manifest.name in found:
            raise PackError(f"two packs are named {manifest.name!r}; configure one of them")
        found[manifest.name] = Pack(directory, manifest)
    return found


def _place(error: Exception) -> str:
    """Where an error was raised; its text stays out of the log, for it may hold anything."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}"


def _failed(study: StudyInput, pack: Pack, reason: str) -> Findings:
    return Findings(
        study_uid=study.study_uid, status=Status.FAILED, pack=pack.manifest.ref, reason=reason
    )
