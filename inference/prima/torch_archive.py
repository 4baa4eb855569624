"""The zip file that torch.save writes, read with bounds: records, and tensors out of them.

Nothing is unpacked beyond the file's own size: records must be stored as they are, and their sizes
together may not exceed the file's. Tensors are read one at a time, when they are asked for.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from inference.errors import WeightsError

MAX_RECORDS = 100_000
MAX_PICKLE_BYTES = 64 << 20
MAX_DIMENSIONS = 8
REREAD = 16
"""How often over, records may be read in all: tensors share them, but not endlessly."""

STORAGES: Mapping[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DAMAGED = (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, struct.error)


@dataclass(frozen=True)
class StorageRef:
    """A storage that the pickle names: which record, of which type, how many elements."""

    key: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor as the pickle describes it; its numbers stay in the file."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def check(self) -> TensorRef:
        """Refuse views that leave their storage, or repeat it to pretend size.

        Raises:
            WeightsError: the description is not of a tensor in this storage.
        """
        sane = (
            len(self.shape) == len(self.stride) <= MAX_DIMENSIONS
            and all(_natural(n) for n in (self.offset, *self.shape, *self.stride))
            and math.prod(self.shape) <= self.storage.elements
        )
        if sane and 0 not in self.shape:
            steps = zip(self.shape, self.stride, strict=True)
            last = self.offset + sum((size - 1) * step for size, step in steps)
            sane = last < self.storage.elements
        if not sane:
            raise WeightsError("a tensor reaches beyond its storage; the file is damaged or forged")
        return self


def _natural(number: object) -> bool:
    return type(number) is int and 0 <= number < 1 << 62


class Archive:
    """An open torch.save file."""

    def __init__(self, path: Path) -> None:
        """Open a file and check its directory of records.

        Raises:
            WeightsError: no such file, no zip, or one that torch.save does not write.
        """
        self.name = path.name
        if not path.is_file():
            raise WeightsError(f"{path.name}: no such file")
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGED as error:
            raise WeightsError(
                f"{path.name}: not a file of torch.save's zip layout, or cut off; fetch it again"
            ) from error
        self._left = REREAD * path.stat().st_size
        try:
            self._records = self._check(path.stat().st_size)
            self._check_byte_order()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def wrong(self, problem: str) -> WeightsError:
        """The error for this file."""
        return WeightsError(f"{self.name}: {problem}")

    def pickle_bytes(self) -> bytes:
        """The pickle that describes the saved object."""
        size = self._records["data.pkl"].file_size
        if size > MAX_PICKLE_BYTES:
            raise self.wrong(f"its pickle has {size} bytes; model files stay below 64 MiB")
        return self._read("data.pkl")

    def storage(self, type_name: str, key: object, elements: object) -> StorageRef:
        """A storage that the pickle names, if the file holds it whole.

        Raises:
            WeightsError: unknown type, no such record, or another size than claimed.
        """
        dtype = STORAGES.get(type_name)
        if dtype is None or not isinstance(key, str) or type(elements) is not int:
            raise self.wrong("it names a storage in no way that torch.save does")
        record = self._records.get(f"data/{key}")
        if record is None or not 0 <= elements * dtype.itemsize <= record.file_size:
            raise self.wrong(f"storage {key!r} is not there or smaller than claimed")
        return StorageRef(key, dtype, elements)

    def tensor(self, ref: TensorRef) -> Tensor:
        """Read one tensor, contiguous and writable.

        Raises:
            WeightsError: its record is damaged.
        """
        if 0 in ref.shape:
            return torch.empty(ref.shape, dtype=ref.storage.dtype)
        raw = bytearray(self._read(f"data/{ref.storage.key}"))
        flat = torch.frombuffer(raw, dtype=ref.storage.dtype, count=ref.storage.elements)
        return flat.as_strided(ref.shape, ref.stride, ref.offset).contiguous()

    def _check(self, file_size: int) -> dict[str, zipfile.ZipInfo]:
        entries = self._zip.infolist()
        if len(entries) > MAX_RECORDS or sum(e.file_size for e in entries) > file_size:
            raise self.wrong("its records claim more than the file holds; it is forged")
        records: dict[str, zipfile.ZipInfo] = {}
        folders = {entry.filename.partition("/")[0] for entry in entries}
        for entry in entries:
            inner = entry.filename.partition("/")[2]
            plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
            if not plain or inner in records or entry.compress_size != entry.file_size:
                raise self.wrong(f"record {inner[:40]!r} is packed, locked or twice there")
            records[inner] = entry
        if len(folders) != 1 or "data.pkl" not in records:
            raise self.wrong("it holds no data.pkl in one folder; it is no torch.save file")
        return records

    def _check_byte_order(self) -> None:
        # Files of before 2023 have no such record; they were written little-endian.
        if "byteorder" in self._records and self._read("byteorder").strip() != b"little":
            raise self.wrong("its numbers are big-endian; save it on a usual machine")

    def _read(self, record: str) -> bytes:
        self._left -= self._records[record].file_size
        if self._left < 0:
            raise self.wrong("its tensors share their records endlessly; it is forged")
        try:
            return self._zip.read(self._records[record])
        except _DAMAGED as error:
            raise self.wrong(f"record {record} is damaged; fetch the file again") from error
