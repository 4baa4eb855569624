"""The beginning of a Part-10 file as it arrives: preamble and file meta (PS3.10 section 7.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicom_nodes import identifiers
from dicom_nodes.web.errors import WebRequestError

PREAMBLE_BYTES = 132
MAX_META_BYTES = 1 << 16
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_CLASS, _INSTANCE, _SYNTAX = 0x0002, 0x0003, 0x0010


class NotPart10(WebRequestError):
    """The bytes are no DICOM Part-10 file."""


@dataclass(frozen=True)
class FileMeta:
    """What file meta says of the dataset behind it.

    Attributes:
        dataset_offset: where the dataset begins.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_offset: int


def read_meta(head: bytes) -> FileMeta | None:
    """Read file meta from the first bytes of a file; None = more bytes are needed.

    Raises:
        NotPart10: this is none, or it lacks what we must know.
    """
    if len(head) < PREAMBLE_BYTES:
        return None
    if head[128:PREAMBLE_BYTES] != b"DICM":
        raise NotPart10("a part is no DICOM Part-10 file: DICM is missing behind its preamble")
    found: dict[int, str] = {}
    offset = PREAMBLE_BYTES
    while True:
        if offset > MAX_META_BYTES:
            raise NotPart10("the file meta information is longer than it may be")
        if len(head) - offset < 12:
            return None
        group, element, vr, length = struct.unpack_from("<HH2sH", head, offset)
        if group != 2:
            break
        start = offset + 8
        if vr in _LONG:
            (length,) = struct.unpack_from("<L", head, offset + 8)
            start = offset + 12
        offset = start + length
        if element in (_CLASS, _INSTANCE, _SYNTAX):
            if offset > len(head):
                if offset > MAX_META_BYTES:
                    continue
                return None
            found[element] = identifiers.clean_uid(head[start:offset])
    if not all(found.get(element) for element in (_CLASS, _INSTANCE, _SYNTAX)):
        raise NotPart10("the file meta information lacks SOP class, instance or transfer syntax")
    return FileMeta(found[_CLASS], found[_INSTANCE], found[_SYNTAX], offset)
