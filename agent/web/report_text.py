"""A structured report as plain text: its content tree, one item a line (PS3.3 C.17.3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

MAX_LINES = 5000


def read(path: Path) -> str:
    """The report in a DICOM file as text.

    Raises:
        OSError, pydicom.errors.InvalidDicomError: the file is gone or is none.
    """
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    lines = [
        _name(dataset.get("ConceptNameCodeSequence")) or str(dataset.get("Modality", "")),
        f"SOP Instance UID {dataset.SOPInstanceUID}",
        f"Verification {dataset.get('VerificationFlag', 'not stated')}",
        "",
    ]
    for line in _items(dataset, 0):
        lines.append(line)
        if len(lines) >= MAX_LINES:
            lines.append("... (longer than shown here)")
            break
    return "\n".join(lines) + "\n"


def _items(parent: Dataset, depth: int) -> Iterator[str]:
    for item in parent.get("ContentSequence", ()):
        name = _name(item.get("ConceptNameCodeSequence"))
        value = _value(item)
        yield "  " * depth + (f"{name}: {value}" if name and value else name or value)
        yield from _items(item, depth + 1)


def _value(item: Dataset) -> str:
    kind = item.get("ValueType", "")
    if kind == "CODE":
        return _name(item.get("ConceptCodeSequence"))
    if kind == "NUM":
        measured = next(iter(item.get("MeasuredValueSequence", ())), None)
        if measured is None:
            return "not measured"
        unit = _code_value(measured.get("MeasurementUnitsCodeSequence"))
        return f"{measured.get('NumericValue', '')} {'' if unit == '1' else unit}".strip()
    if kind in ("IMAGE", "COMPOSITE"):
        referenced = next(iter(item.get("ReferencedSOPSequence", ())), Dataset())
        return f"{kind.lower()} {referenced.get('ReferencedSOPInstanceUID', '')}"
    keyword = {"TEXT": "TextValue", "PNAME": "PersonName", "UIDREF": "UID", "DATE": "Date"}
    return str(item.get(keyword.get(kind, "DateTime"), ""))


def _name(sequence: object) -> str:
    code = next(iter(sequence), None) if isinstance(sequence, pydicom.Sequence) else None
    return str(code.get("CodeMeaning", "")) if code is not None else ""


def _code_value(sequence: object) -> str:
    code = next(iter(sequence), None) if isinstance(sequence, pydicom.Sequence) else None
    return str(code.get("CodeValue", "")) if code is not None else ""
