"""One HL7 v2 message: read field by field, or built field by field, never by counting pipes.

Reading rests on python-hl7. Everything a caller asks for by `Ref` is unescaped text; what is not
there is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import hl7

from dicom_nodes.hl7 import charsets
from dicom_nodes.hl7.errors import Hl7Error

_REF = re.compile(r"^([A-Z][A-Z0-9]{2})-(\d{1,3})(?:\.(\d{1,2}))?(?:\.(\d{1,2}))?$")
_ESCAPES = (("\\", "\\E\\"), ("|", "\\F\\"), ("^", "\\S\\"), ("&", "\\T\\"), ("~", "\\R\\"))
_LINES = re.compile(r"\r\n|\r|\n")
MAX_SEGMENTS = 5000


@dataclass(frozen=True)
class Ref:
    """Where a value stands: segment, field, component, subcomponent (1-based; 0 = the whole)."""

    segment: str
    field: int
    component: int = 0
    subcomponent: int = 0

    @staticmethod
    def of(text: str) -> Ref:
        """``OBR-27.6`` and the like.

        Raises:
            ValueError: it is no such reference.
        """
        match = _REF.match(text)
        if match is None or int(match[2]) == 0:
            raise ValueError(
                f"{text!r} is no field; write SEGMENT-FIELD or SEGMENT-FIELD.COMPONENT, "
                "for example OBR-18 or ORC-7.6"
            )
        return Ref(match[1], int(match[2]), int(match[3] or 0), int(match[4] or 0))


class Message:
    """A received message."""

    def __init__(self, parsed: Any) -> None:
        self._parsed = parsed

    @staticmethod
    def read(content: bytes, default_charset: str = charsets.UTF8) -> Message:
        """Decode by MSH-18 and parse.

        Raises:
            Hl7Error: it is no message, or not in the character set it states.
        """
        text = charsets.decode(content, stated_charset(content), default_charset)
        return Message.parse(text)

    @staticmethod
    def parse(text: str) -> Message:
        """Parse text, segments ended by CR (LF and CR LF are taken for it).

        Raises:
            Hl7Error: it is no message.
        """
        lines = [line for line in _LINES.split(text) if line.strip("\0 ")]
        if not lines or not lines[0].startswith("MSH") or len(lines[0]) < 8:
            raise Hl7Error("not an HL7 message: it does not begin with MSH; check the sender")
        if len(set(lines[0][3:8])) != 5 or lines[0][3:8].isalnum():
            raise Hl7Error("MSH-1 and MSH-2 do not name five separators; check the sender")
        if len(lines) > MAX_SEGMENTS:
            raise Hl7Error(f"more than {MAX_SEGMENTS} segments; check the sender")
        try:
            return Message(hl7.parse("\r".join(lines) + "\r"))
        except (
            Exception
        ) as error:  # the parser meets hostile bytes: whatever it says, it is no message
            raise Hl7Error(f"the message cannot be parsed ({type(error).__name__})") from error

    @property
    def segments(self) -> Iterator[str]:
        """Names of the segments, in order."""
        return (str(segment[0]) for segment in self._parsed)

    def get(self, ref: Ref | str, occurrence: int = 1, repetition: int = 1) -> str:
        """The text at a place, stripped; empty when there is none.

        A reference without component gives the first component of a composite field.
        """
        ref = Ref.of(ref) if isinstance(ref, str) else ref
        if occurrence < 1:
            return ""
        try:
            found = self._parsed.extract_field(
                ref.segment,
                occurrence,
                ref.field,
                repetition,
                ref.component or 1,
                ref.subcomponent or 1,
            )
        except (LookupError, ValueError, TypeError):
            return ""
        text = str(found or "").replace("\0", "").strip()
        return "" if text == '""' else text  # "" means: delete; nothing of ours outlives it

    def components(self, ref: Ref | str, occurrence: int = 1, repetition: int = 1) -> list[str]:
        """All components of a field, trailing empty ones left out."""
        ref = Ref.of(ref) if isinstance(ref, str) else ref
        values = [
            self.get(Ref(ref.segment, ref.field, n), occurrence, repetition)
            for n in range(1, self._width(ref, occurrence, repetition) + 1)
        ]
        while values and not values[-1]:
            values.pop()
        return values

    def repetitions(self, ref: Ref | str, occurrence: int = 1) -> int:
        """How often a field is repeated; 0 when its segment is not there."""
        ref = Ref.of(ref) if isinstance(ref, str) else ref
        field = self._field(ref, occurrence)
        return len(field) if isinstance(field, hl7.Field) else int(field is not None)

    def count(self, segment: str) -> int:
        """How many segments of this name there are."""
        return sum(name == segment for name in self.segments)

    def _field(self, ref: Ref, occurrence: int) -> Any:
        found = [s for s in self._parsed if str(s[0]) == ref.segment]
        if not 1 <= occurrence <= len(found) or len(found[occurrence - 1]) <= ref.field:
            return None
        return found[occurrence - 1][ref.field]

    def _width(self, ref: Ref, occurrence: int, repetition: int) -> int:
        field = self._field(ref, occurrence)
        if not isinstance(field, hl7.Field):
            return int(field is not None)
        if len(field) < repetition:
            return 0
        one = field[repetition - 1]
        return len(one) if isinstance(one, hl7.Repetition) else 1


class Segment:
    """A segment under construction: fields by number, each a text or components."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._fields: dict[int, dict[int, str]] = {}

    def set(self, field: int, *components: str) -> Segment:
        """Set a field from its components, escaped; empty ones may be given."""
        self._fields[field] = {n: escape(c) for n, c in enumerate(components, start=1)}
        return self

    def put(self, ref: Ref, value: str) -> None:
        """Set one place, keeping the field's other components."""
        if ref.component:
            self._fields.setdefault(ref.field, {})[ref.component] = escape(value)
        else:
            self._fields[ref.field] = {1: escape(value)}

    def repeat(self, field: int, *repetitions: str) -> Segment:
        """Set a field to texts that repeat."""
        self._fields[field] = {1: "~".join(escape(r) for r in repetitions)}
        return self

    def __str__(self) -> str:
        """As on the wire, without the terminator."""
        numbers = [n for n, parts in self._fields.items() if any(parts.values())]
        first = 2 if self.name == "MSH" else 1
        fields = [self._text(n) for n in range(first, max(numbers, default=0) + 1)]
        return "|".join([self.name, *fields])

    def _text(self, number: int) -> str:
        if self.name == "MSH" and number == 2:
            return "^~\\&"
        parts = self._fields.get(number, {})
        width = max((n for n, value in parts.items() if value), default=0)
        return "^".join(parts.get(n, "") for n in range(1, width + 1))


def text_of(segments: list[Segment]) -> str:
    """A message of segments, each ended by CR."""
    return "".join(f"{segment}\r" for segment in segments)


def apply(segments: list[Segment], values: Mapping[Ref, str]) -> None:
    """Set places in whatever segments there are; a segment that is missing is added at the end."""
    for ref, value in values.items():
        named = [s for s in segments if s.name == ref.segment]
        if not named:
            named = [Segment(ref.segment)]
            segments += named
        for segment in named:
            segment.put(ref, value)


def escape(text: str) -> str:
    """Text as a component: delimiters and line ends escaped, control characters dropped."""
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    text = _LINES.sub(r"\\.br\\", text)
    return "".join(c for c in text if c >= " ")


def stated_charset(content: bytes) -> str:
    """MSH-18 of a message that is not decoded yet."""
    first = re.split(rb"[\r\n]", content.lstrip(b"\0 \r\n"), maxsplit=1)[0]
    if len(first) < 4:
        return ""
    fields = first.split(first[3:4])
    return fields[17].decode("latin-1") if len(fields) > 17 else ""
