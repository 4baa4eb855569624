"""The spool: received instances as files, study/series/instance.dcm, complete or absent.

A file appears under its final name only after its bytes were fsync'd, and it is never overwritten.
UIDs name directories and files (a hash where one is unusual); nothing of the patient does.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.errors import SpoolError
from dicom_nodes import identifiers

INCOMING, QUARANTINE = "incoming", "quarantine"
_COMPARE_BYTES = 1 << 20
_MAX_REMEMBERED = 20_000


@dataclass(frozen=True)
class Placed:
    """Where an instance lies.

    Attributes:
        path: relative to the spool.
        is_new: False when the same bytes lay there already.
    """

    path: str
    is_new: bool


@dataclass(frozen=True)
class Refused:
    """Why an instance was put into quarantine; written beside it, free of patient data."""

    status: str
    reason: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    address: str
    received_at: str


class Spool:
    """Files below one directory, shared by all ingest nodes."""

    def __init__(self, root: Path) -> None:
        """Make the directories.

        Raises:
            SpoolError: they cannot be made or written.
        """
        self.root = root
        self.incoming = root / INCOMING
        self.quarantine = root / QUARANTINE
        self._prefix = f"{root}/"  # paths are joined as text: once for every instance
        self._durable_dirs: set[str] = set()
        try:
            for directory in (root, self.incoming, self.quarantine):
                directory.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(
                f"the spool directory cannot be made: {error.strerror}; "
                "check [storage] data_dir and its permissions"
            ) from error

    def place(self, temporary: Path, study_uid: str, series_uid: str, sop_uid: str) -> Placed:
        """Move a complete temporary file to its final name; `sync` makes the name durable.

        Raises:
            OSError: the file system refuses.
        """
        _fsync(temporary)
        stem = f"{directory_of(study_uid, series_uid)}/{identifiers.safe_name(sop_uid)}"
        for version in itertools.count():
            path = f"{stem}.v{version}.dcm" if version else f"{stem}.dcm"
            is_new = self._link(temporary, path)
            if is_new or same_content(temporary, self.root / path):
                break
        temporary.unlink()
        return Placed(path=path, is_new=is_new)

    def _link(self, temporary: Path, path: str) -> bool:
        """Give the file its final name; False when the name is taken."""
        # A hard link refuses an existing name, where a rename would overwrite it: two associations
        # that send the same UID at once cannot lose each other's bytes.
        target = f"{self._prefix}{path}"
        for _ in range(2):
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except FileNotFoundError:
                parent = Path(target).parent
                parent.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
                self._durable_dirs.discard(str(parent))
            else:
                return True
        raise FileNotFoundError(errno.ENOENT, "the series directory vanished again")

    def sync(self, paths: Iterable[str]) -> None:
        """Make the names of placed files durable.

        Raises:
            OSError: the file system refuses.
        """
        directories = {f"{self._prefix}{path.rpartition('/')[0]}" for path in paths}
        fresh = directories - self._durable_dirs
        above = {directory.rpartition("/")[0] for directory in fresh}
        for directory in (*directories, *above, *({str(self.root)} if fresh else ())):
            _fsync(directory)
        if len(self._durable_dirs) > _MAX_REMEMBERED:
            self._durable_dirs.clear()
        self._durable_dirs |= fresh

    def refuse(self, temporary: Path, why: Refused) -> None:
        """Keep a file that we cannot take, with the reason beside it.

        Raises:
            OSError: the file system refuses.
        """
        target = self.quarantine / f"{temporary.stem}.dcm"
        target.with_suffix(".json").write_text(json.dumps(asdict(why), indent=1), encoding="utf-8")
        temporary.rename(target)

    def sweep(self, directory: Path, older_than_s: float, now_s: float | None = None) -> int:
        """Remove files of `incoming` or `quarantine` older than that; return how many."""
        limit = (time.time() if now_s is None else now_s) - older_than_s
        removed = 0
        for path in directory.iterdir():
            try:
                if path.is_file() and path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
            except FileNotFoundError:  # its association ended just now
                continue
        return removed

    def free_bytes(self) -> int:
        """Space left on the spool's file system for us.

        Raises:
            OSError: the file system does not say.
        """
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def study_directories(self) -> Iterator[str]:
        """Names of the study directories that exist."""
        with os.scandir(self.root) as entries:
            for entry in entries:
                if entry.is_dir() and entry.name not in (INCOMING, QUARANTINE):
                    yield entry.name

    def files_of(self, study_directory: str) -> set[str]:
        """Relative paths of the instances below one study directory."""
        base = self.root / study_directory
        return {str(path.relative_to(self.root)) for path in base.glob("*/*.dcm")}


def directory_of(study_uid: str, series_uid: str) -> str:
    """Return the relative directory of a series."""
    return f"{identifiers.safe_name(study_uid)}/{identifiers.safe_name(series_uid)}"


def same_content(one: Path, other: Path) -> bool:
    """Compare two files byte by byte."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while piece := a.read(_COMPARE_BYTES):
            if piece != b.read(_COMPARE_BYTES):
                return False
    return True


def _fsync(path: Path | str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
