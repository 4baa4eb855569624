"""The table of studies: one row a study, from CSV or Parquet, with labels and reports beside it."""

from __future__ import annotations

import csv
import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.data.errors import DataError

REQUIRED = ("study", "path", "patient")
DESCRIBING = ("modality", "date", "sex", "age", "scanner", "site", "report", "summary", "split")
MODALITIES = {"CT": "CT", "MR": "MR", "MRI": "MR"}


@dataclass(frozen=True)
class StudyRow:
    """One study.

    Attributes:
        study: identifies it, e.g. its Study Instance UID.
        path: directory of DICOM files (any depth) or NIfTI files, or one NIfTI file.
        patient: any stable pseudonym: splits keep a patient's studies together.
        modality: ``CT`` or ``MR``; empty = both are read.
        date: of the examination; None when unknown.
        age: in years; None when unknown.
        summary: of the report, as `training.prima.summaries` writes it.
        labels: 1 present, 0 absent; a label that is not here is unknown.
        split: fixed by the table; empty = the split rules decide.
    """

    study: str
    path: Path
    patient: str
    modality: str = ""
    date: dt.date | None = None
    sex: str = ""
    age: float | None = None
    scanner: str = ""
    site: str = ""
    report: str = ""
    split: str = ""
    summary: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)


def read_table(file: Path, labels: Sequence[str] | None = None) -> list[StudyRow]:
    """Read a table; relative paths are relative to its folder.

    Args:
        file: ``.csv`` (UTF-8, header line) or ``.parquet``.
        labels: columns that are labels; None = every column this module does not know.

    Raises:
        DataError: the file or a value cannot be used; the message names line and column.
    """
    records = _records(file)
    rows = [_row(record, file, number, labels) for number, record in enumerate(records, start=2)]
    if not rows:
        raise DataError(f"{file.name}: no study in it")
    seen: set[str] = set()
    for row in rows:
        if row.study in seen:
            raise DataError(
                f"{file.name}: study {row.study!r} is there twice; keep one row a study"
            )
        seen.add(row.study)
    return rows


def write_table(file: Path, rows: Iterable[StudyRow]) -> None:
    """Write a CSV table that `read_table` reads back."""
    listed = list(rows)
    labels = sorted({label for row in listed for label in row.labels})
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*REQUIRED, *DESCRIBING, *labels])
        for row in listed:
            plain = [row.study, row.path, row.patient, row.modality, row.date or "", row.sex]
            age = "" if row.age is None else row.age
            rest = [age, row.scanner, row.site, row.report, row.summary, row.split]
            writer.writerow([*plain, *rest, *(row.labels.get(label, "") for label in labels)])


def _records(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise DataError(f"{file}: no such table")
    if file.suffix.lower() == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise DataError("reading Parquet needs pyarrow: install the extra 'train'") from error
        rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
        return rows
    with file.open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


def _row(
    record: Mapping[str, Any], file: Path, line: int, labels: Sequence[str] | None
) -> StudyRow:
    where = f"{file.name}, line {line}"
    values = {k: "" if v is None else v for k, v in record.items()}
    for name in REQUIRED:
        if not str(values.get(name, "")).strip():
            raise DataError(f"{where}: column {name!r} is missing or empty")
    known = {*REQUIRED, *DESCRIBING}
    wanted = [c for c in values if c not in known] if labels is None else labels
    modality = str(values.get("modality", "")).strip().upper()
    if modality and modality not in MODALITIES:
        raise DataError(f"{where}: modality {modality!r} is not CT or MR")
    return StudyRow(
        study=str(values["study"]).strip(),
        path=file.parent / str(values["path"]).strip(),
        patient=str(values["patient"]).strip(),
        modality=MODALITIES.get(modality, ""),
        date=_date(values.get("date", ""), where),
        sex=str(values.get("sex", "")).strip(),
        age=_number(values.get("age", ""), f"{where}: age"),
        scanner=str(values.get("scanner", "")).strip(),
        site=str(values.get("site", "")).strip(),
        report=str(values.get("report", "")),
        summary=str(values.get("summary", "")),
        split=str(values.get("split", "")).strip().lower(),
        labels={
            name: v for name in wanted if (v := _label(values.get(name, ""), where, name)) >= 0
        },
    )


def _date(value: Any, where: str) -> dt.date | None:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    text = str(value).strip()
    if not text:
        return None
    try:
        return dt.date.fromisoformat(text[:10])
    except ValueError as error:
        raise DataError(f"{where}: date {text!r} is not YYYY-MM-DD") from error


def _number(value: Any, where: str) -> float | None:
    text = str(value).strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError as error:
        raise DataError(f"{where}: {text!r} is not a number") from error
    return None if math.isnan(number) else number


def _label(value: Any, where: str, name: str) -> int:
    """1, 0, or -1 for unknown."""
    text = str(value).strip().lower()
    if text in ("", "nan", "none", "-1"):
        return -1
    if text in ("1", "1.0", "true", "0", "0.0", "false"):
        return int(text in ("1", "1.0", "true"))
    raise DataError(f"{where}: label {name} is {text!r}; use 1, 0 or leave it empty")
