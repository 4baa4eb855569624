"""Strict reading of TOML tables: every key known, of the right type, named when wrong."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, TypeVar

from inference.errors import PackError

_T = TypeVar("_T")


class Table:
    """A TOML table under validation: every key is taken once, what is left is unknown."""

    def __init__(self, data: dict[str, Any], where: str, prefix: str) -> None:
        self._data, self._where, self._prefix = dict(data), where, prefix

    def wrong(self, key: str, problem: str) -> PackError:
        """The error for a key of this table."""
        return PackError(f"{self._where}: {self._prefix}{key}: {problem}")

    def take(self, key: str, kind: type[_T], default: _T | None = None) -> _T:
        """Take a value of exactly this type (whole numbers pass as float)."""
        if key not in self._data:
            if default is not None:
                return default
            raise self.wrong(key, f"missing; expected {kind.__name__}")
        value = self._data.pop(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind or value == "":
            raise self.wrong(key, f"{value!r} is not a valid {kind.__name__}")
        return value

    def fraction(self, key: str, default: float | None = None) -> float:
        """Take a number in 0..1."""
        value = self.take(key, float, default)
        if not 0 <= value <= 1:
            raise self.wrong(key, f"{value} is not in 0..1")
        return value

    def choice(self, key: str, allowed: Iterable[str], default: str | None = None) -> str:
        """Take one of the allowed texts."""
        value = str(default) if default is not None and not self.has(key) else self.take(key, str)
        if value not in allowed:
            raise self.wrong(key, f"{value!r} is none of {', '.join(allowed)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a non-empty array of non-empty texts."""
        items = self.take(key, list)
        if not items or not all(isinstance(item, str) and item for item in items):
            raise self.wrong(key, "expected at least one text")
        return tuple(items)

    def path(self, key: str) -> str:
        """Take a relative path that stays inside the folder."""
        value = self.take(key, str)
        pure = PurePosixPath(value)
        if pure.is_absolute() or ".." in pure.parts or "\\" in value:
            raise self.wrong(key, f"{value!r} is not a path inside the pack")
        return value

    def sub(self, key: str) -> Table:
        """Take a nested table."""
        return Table(self.take(key, dict), self._where, f"{self._prefix}{key}.")

    def subs(self, key: str) -> list[Table]:
        """Take a non-empty array of tables."""
        items = self.take(key, list)
        if not items or not all(isinstance(item, dict) for item in items):
            raise self.wrong(key, "expected at least one table")
        prefix = f"{self._prefix}{key}"
        return [Table(item, self._where, f"{prefix}[{n}].") for n, item in enumerate(items)]

    def has(self, key: str) -> bool:
        """Whether the key is there and not yet taken."""
        return key in self._data

    def end(self) -> None:
        """Refuse what nobody took."""
        if self._data:
            raise self.wrong(min(self._data), "unknown key; remove it or correct its name")
