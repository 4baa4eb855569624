"""The token cache on disk: raw arrays that are mapped into memory, and an index beside them.

A cache folder holds `cache.json` (what it is), `index.jsonl` (one line a study, written after its
bytes are on disk) and shards of raw uint8 tokens and int16 coordinates. What a crash left behind
the last indexed study is cut off by the next run, so that building goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from training.data.errors import DataError
from training.data.studies import TokenizedSeries

FORMAT = 1
TOKEN_VALUES = 1024
COORDS_BYTES = 6
SHARD_TOKENS = 1 << 20
"""About 1 GiB a shard."""


@dataclass(frozen=True)
class CachedSeries:
    """Where a series lies in the cache.

    Attributes:
        shard: number of its shard.
        first: its first token there.
        count: its tokens.
        grid: tokens along depth, rows and columns.
    """

    name: str
    modality: str
    window: str
    shard: int
    first: int
    count: int
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class CachedStudy:
    """A study of the cache: its series, or why it has none."""

    study: str
    series: tuple[CachedSeries, ...]
    reason: str = ""


class CacheWriter:
    """Appends studies; safe to kill at any line."""

    def __init__(self, folder: Path, shard_tokens: int = SHARD_TOKENS) -> None:
        """Open or begin a cache.

        Raises:
            DataError: the folder holds a cache of another format.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit = shard_tokens
        about = folder / "cache.json"
        if about.is_file():
            _check_format(about)
        else:
            _write_atomically(about, {"format": FORMAT, "token_values": TOKEN_VALUES})
        _cut_torn_line(folder / "index.jsonl")
        self.done = {study.study: study for study in read_index(folder)}
        ends = [(s.shard, s.first + s.count) for c in self.done.values() for s in c.series]
        self._shard, self._used = max(ends, default=(0, 0))
        self._tokens, self._coords = self._open()
        self._index = (folder / "index.jsonl").open("ab")

    def add(self, study: str, series: Sequence[TokenizedSeries], reason: str = "") -> None:
        """Store a study's tokens, then its line in the index."""
        placed = tuple(self._place(one) for one in series)
        for file in (self._tokens, self._coords):
            file.flush()
            os.fsync(file.fileno())
        entry = CachedStudy(study, placed, reason)
        self._index.write(json.dumps(asdict(entry)).encode() + b"\n")
        self._index.flush()
        os.fsync(self._index.fileno())
        self.done[study] = entry

    def close(self) -> None:
        """Close the files."""
        for file in (self._tokens, self._coords, self._index):
            file.close()

    def _place(self, one: TokenizedSeries) -> CachedSeries:
        if self._used and self._used + len(one.tokens) > self._limit:
            for file in (self._tokens, self._coords):
                file.flush()
                os.fsync(file.fileno())
                file.close()
            self._shard, self._used = self._shard + 1, 0
            self._tokens, self._coords = self._open()
        first = self._used
        self._tokens.write(np.ascontiguousarray(one.tokens).tobytes())
        self._coords.write(one.coords.astype("<i2").tobytes())
        self._used += len(one.tokens)
        return CachedSeries(
            one.name, one.modality, one.window, self._shard, first, len(one.tokens), one.grid
        )

    def _open(self) -> tuple[BinaryIO, BinaryIO]:
        """The current shard's files, without what an interrupted study left at their ends."""
        opened = []
        for kind, size in (("tokens", TOKEN_VALUES), ("coords", COORDS_BYTES)):
            path = shard_path(self._folder, self._shard, kind)
            file = path.open("r+b" if path.exists() else "w+b")
            file.truncate(self._used * size)
            file.seek(0, os.SEEK_END)
            opened.append(file)
        return opened[0], opened[1]


class Cache:
    """A finished (or growing) cache, opened for reading; arrays are views of the mapped files."""

    def __init__(self, folder: Path) -> None:
        """Read the index.

        Raises:
            DataError: there is no cache in the folder.
        """
        about = folder / "cache.json"
        if not about.is_file():
            raise DataError(f"{folder}: no token cache; make one with: worklist-agent train cache")
        _check_format(about)
        self.folder = folder
        self.studies = {study.study: study for study in read_index(folder) if study.series}
        self._map = lru_cache(maxsize=256)(self._mapped)

    def tokens(self, series: CachedSeries) -> npt.NDArray[np.uint8]:
        """uint8 [N, 1024]."""
        return self._map(series.shard, "tokens")[series.first : series.first + series.count]

    def coords(self, series: CachedSeries) -> npt.NDArray[np.int16]:
        """int16 [N, 3]."""
        return self._map(series.shard, "coords")[series.first : series.first + series.count]

    def _mapped(self, shard: int, kind: str) -> npt.NDArray[Any]:
        path = shard_path(self.folder, shard, kind)
        width, dtype = (TOKEN_VALUES, np.uint8) if kind == "tokens" else (3, np.dtype("<i2"))
        return np.memmap(path, dtype=dtype, mode="r").reshape(-1, width)


def read_index(folder: Path) -> Iterator[CachedStudy]:
    """The studies of a cache in the order they were added; a torn last line is not there."""
    path = folder / "index.jsonl"
    if not path.is_file():
        return
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                return
            entry = json.loads(line)
            series = tuple(
                CachedSeries(**{**one, "grid": tuple(one["grid"])}) for one in entry["series"]
            )
            yield CachedStudy(entry["study"], series, entry["reason"])


def shard_path(folder: Path, shard: int, kind: str) -> Path:
    """File of a shard; `kind` is ``tokens`` or ``coords``."""
    return folder / f"shard-{shard:05d}.{kind}"


def _cut_torn_line(path: Path) -> None:
    """Drop a last line that a crash left without its end."""
    if not path.is_file():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        with path.open("r+b") as stream:
            stream.truncate(whole)


def _check_format(about: Path) -> None:
    found = json.loads(about.read_text(encoding="utf-8")).get("format")
    if found != FORMAT:
        raise DataError(
            f"{about.parent}: a cache of format {found}; this version reads {FORMAT}, make it anew"
        )


def _write_atomically(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    temporary.replace(path)
