"""Reads a run's TOML file into its dataclass: defaults for what is missing, no unknown key."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from training.runtime import RunError

T = TypeVar("T")


def read_config(file: Path | None, kind: type[T], section: str = "") -> T:
    """The run that a file describes; the defaults when there is none.

    Args:
        file: TOML.
        kind: a dataclass.
        section: table of the file to read; empty = the whole file.

    Raises:
        RunError: not TOML, an unknown key or a wrong value, each named.
    """
    data: dict[str, Any] = {}
    if file is not None:
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunError(f"{file}: no such file") from error
        except tomllib.TOMLDecodeError as error:
            raise RunError(f"{file.name}: not TOML: {error}") from error
    given = data.get(section, {}) if section else data
    name = file.name if file else "configuration"
    _refuse_unknown(given, kind, name)
    try:
        made: T = TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{name}: {where}: {first['msg']}") from error
    return made


def _refuse_unknown(given: Mapping[str, Any], kind: type, where: str) -> None:
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    for key, value in given.items():
        if key not in known:
            raise RunError(f"{where}: unknown key {key!r}; known: {', '.join(sorted(known))}")
        inner = next((t for t in _types(hints[key]) if _is_dataclass(t)), None)
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown(value, inner, f"{where}: {key}")


def _is_dataclass(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _types(hint: Any) -> list[Any]:
    return [hint, *typing.get_args(hint)]
