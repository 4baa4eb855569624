"""The few header elements that the record needs, read by hand from the first bytes of a dataset.

A full parse of a CT header costs more CPU than receiving the image. The scan below walks the
top-level elements only; whatever makes it unsure is left to pydicom (`read`).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pydicom
from pydicom import charset as pydicom_charset

from dicom_nodes.errors import NodeError
from dicom_nodes.presentation import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE


class UnreadableHeader(NodeError):
    """The bytes cannot be read as a DICOM dataset."""

    permanent = True


class UnsureHeader(Exception):
    """The quick scan met something it does not handle; pydicom may."""


@dataclass(frozen=True)
class Header:
    """Values of one instance's header, decoded and without padding; empty when absent."""

    character_set: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_date: str = ""
    study_time: str = ""
    accession_number: str = ""
    modality: str = ""
    manufacturer: str = ""
    institution: str = ""
    station_name: str = ""
    study_description: str = ""
    series_description: str = ""
    model_name: str = ""
    patient_name: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    body_part: str = ""
    protocol: str = ""
    study_uid: str = ""
    series_uid: str = ""
    series_number: str = ""
    instance_number: str = ""
    patient_location: str = ""
    ordered_priority: str = ""


#: PS3.6; in ascending order, as in a dataset, and in the order of the fields of `Header`.
TAGS: tuple[int, ...] = (
    0x00080005,
    0x00080016,
    0x00080018,
    0x00080020,
    0x00080030,
    0x00080050,
    0x00080060,
    0x00080070,
    0x00080080,
    0x00081010,
    0x00081030,
    0x0008103E,
    0x00081090,
    0x00100010,
    0x00100020,
    0x00100021,
    0x00100030,
    0x00100040,
    0x00180015,
    0x00181030,
    0x0020000D,
    0x0020000E,
    0x00200011,
    0x00200013,
    0x00380300,
    0x00401003,
)
_FIELDS = dict(zip(TAGS, (field.name for field in fields(Header)), strict=True))
_NEEDED_UP_TO = 0x00200013
"""Elements beyond are welcome, but not worth reading more than the head for."""
_LAST = TAGS[-1]

_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MAX_DEPTH = 16
_INFLATE_LIMIT = 1 << 20


def scan(head: bytes, transfer_syntax_uid: str, *, whole: bool = False) -> Header:
    """Read the header from the first bytes of a dataset.

    Args:
        head: the beginning of the encoded dataset.
        transfer_syntax_uid: how it is encoded.
        whole: `head` is the whole dataset, so nothing may be missing at its end.

    Raises:
        UnsureHeader: ask `read` instead.
    """
    if transfer_syntax_uid == DEFLATED:
        head, whole = _inflate(head), False
    walker = _Walker(
        head,
        explicit=transfer_syntax_uid != IMPLICIT_LITTLE,
        order=">" if transfer_syntax_uid == EXPLICIT_BIG else "<",
    )
    try:
        values = walker.values(whole=whole)
    except (struct.error, IndexError) as error:
        raise UnsureHeader("dataset ends inside an element") from error
    return _header(values)


def read(path: Path) -> Header:
    """Read the header of a Part-10 file with pydicom.

    Raises:
        UnreadableHeader: pydicom cannot read it either.
    """
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
        values: dict[int, bytes | str] = {}
        for tag in TAGS:
            if tag in dataset:
                values[tag] = _text_of(dataset[tag].value)
    except Exception as error:  # a parser on hostile bytes fails in many ways
        raise UnreadableHeader(
            f"the dataset cannot be parsed ({type(error).__name__}); the sender must mend it"
        ) from error
    return _header(values)


def whole_number(text: str) -> int | None:
    """Return an IS value as a number that fits a database integer, or None."""
    try:
        return number if -(2**31) <= (number := int(text)) < 2**31 else None
    except ValueError:
        return None


class _Walker:
    """Steps through the top-level elements of an encoded dataset."""

    def __init__(self, data: bytes, *, explicit: bool, order: str) -> None:
        self._data = data
        self._explicit = explicit
        self._order = order
        self._short = struct.Struct(order + "HH2sH").unpack_from
        self._long = struct.Struct(order + "HHL").unpack_from
        self._length = struct.Struct(order + "L").unpack_from

    def values(self, *, whole: bool) -> dict[int, bytes | str]:
        data, end = self._data, len(self._data)
        found: dict[int, bytes | str] = {}
        offset, last_tag = 0, 0
        explicit, short = self._explicit, self._short
        while offset < end:
            if end - offset < 12 and not whole:
                return self._cut(found, last_tag)
            if explicit and end - offset >= 8:  # the usual element, without a call
                group, element, vr, length = short(data, offset)
                tag, start = group << 16 | element, offset + 8
                if vr not in _SHORT:
                    tag, vr, length, start = self._element(offset, explicit=True)
            else:
                tag, vr, length, start = self._element(offset, explicit=explicit)
            if tag > _LAST:
                break
            if tag <= last_tag or tag < 0x00080000:
                raise UnsureHeader("elements are not in ascending order")
            last_tag = tag
            if length == _UNDEFINED:
                try:
                    offset = self._skip(start, vr, 0)
                except (struct.error, IndexError):
                    return self._cut(found, tag)
                continue
            offset = start + length
            if offset > end:
                if whole:
                    raise UnsureHeader("an element is longer than the dataset")
                return self._cut(found, tag)
            if tag in _FIELDS:
                found[tag] = data[start:offset]
        return found

    def _element(self, offset: int, *, explicit: bool) -> tuple[int, bytes, int, int]:
        """Return (tag, VR, value length, value offset)."""
        if not explicit:
            group, element, length = self._long(self._data, offset)
            return group << 16 | element, b"", length, offset + 8
        group, element, vr, length = self._short(self._data, offset)
        if group == 0xFFFE:  # items carry no VR
            return group << 16 | element, b"", self._length(self._data, offset + 4)[0], offset + 8
        if vr in _SHORT:
            return group << 16 | element, vr, length, offset + 8
        if vr in _LONG:
            length = self._length(self._data, offset + 8)[0]
            return group << 16 | element, vr, length, offset + 12
        raise UnsureHeader("not a value representation")

    def _skip(self, offset: int, vr: bytes, depth: int) -> int:
        """Return the offset behind a sequence of undefined length that begins at `offset`."""
        if depth > _MAX_DEPTH:
            raise UnsureHeader("sequences are nested too deeply")
        explicit = self._explicit and vr != b"UN"  # PS3.5 6.2.2: implicit VR inside such a UN
        while True:
            tag, _, length, offset = self._element(offset, explicit=False)
            if tag == _SEQUENCE_END:
                return offset
            if tag != _ITEM:
                raise UnsureHeader("a sequence holds something else than items")
            offset = (
                self._skip_item(offset, depth, explicit=explicit)
                if length == _UNDEFINED
                else offset + length
            )

    def _skip_item(self, offset: int, depth: int, *, explicit: bool) -> int:
        while True:
            tag, vr, length, offset = self._element(offset, explicit=explicit)
            if tag == _ITEM_END:
                return offset
            if length == _UNDEFINED:
                inner = vr if explicit or not self._explicit else b"UN"
                offset = self._skip(offset, inner, depth + 1)
            else:
                offset += length

    @staticmethod
    def _cut(found: dict[int, bytes | str], tag: int) -> dict[int, bytes | str]:
        """The head ends here: enough, if all that is needed came before."""
        if tag <= _NEEDED_UP_TO:
            raise UnsureHeader("the head ends before the identifying elements")
        return found


def _header(values: dict[int, bytes | str]) -> Header:
    charset = _plain(values.get(0x00080005, b""))
    texts = {}
    for tag, value in values.items():
        text = value if isinstance(value, str) else _decode(value, charset)
        texts[_FIELDS[tag]] = text.strip("\0 \t\r\n").replace("\0", "")
    return Header(**texts)


def _plain(value: bytes | str) -> str:
    text = value if isinstance(value, str) else value.decode("latin-1")
    return text.strip("\0 ")


def _decode(value: bytes, charset: str) -> str:
    """Decode text for display; a wrong or missing character set falls back to Latin-1."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    encodings = [
        pydicom_charset.python_encoding.get(name.strip(), "") for name in charset.split("\\")
    ]
    try:
        if len(encodings) == 1 and b"\x1b" not in value:
            return value.decode(encodings[0] or "latin-1")
        known = [encoding or "iso8859" for encoding in encodings]
        return pydicom_charset.decode_bytes(value, known, set(b"^="))
    except (UnicodeError, LookupError, Warning):
        return value.decode("latin-1")


def _inflate(head: bytes) -> bytes:
    """Inflate the beginning only: a few kilobytes can deflate to gigabytes."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _INFLATE_LIMIT)
    except zlib.error as error:
        raise UnsureHeader("not a deflated dataset") from error


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str | bytes | int | float):
        return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    if isinstance(value, pydicom.multival.MultiValue):
        return "\\".join(map(str, value))
    return str(value)
