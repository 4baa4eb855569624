"""multipart/related, both ways (RFC 2046, RFC 2387), with a parser that never holds a part."""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dicom_nodes.web.errors import TooLarge, WebRequestError
from dicom_nodes.web.media import MediaType

MAX_PART_HEADER = 8192
#: RFC 2046 allows 70 characters; Orthanc sends 73.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]")


@dataclass(frozen=True)
class PartBegins:
    """The header of a part; names in lower case."""

    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PartBytes:
    """The next bytes of the part that began last."""

    data: bytes


@dataclass(frozen=True)
class PartEnds:
    """The part that began last is whole."""


Event = PartBegins | PartBytes | PartEnds


class _At(enum.Enum):
    PREAMBLE = enum.auto()
    DELIMITER = enum.auto()
    HEADER = enum.auto()
    BODY = enum.auto()
    EPILOGUE = enum.auto()


class Parser:
    """Turns pieces of a body, however they were cut, into events.

    `finished` says at the end whether the closing delimiter came: without it the last part, and
    perhaps others, are missing.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        # The first delimiter may stand at the very beginning, where no line ended before it.
        self._buffer = bytearray(b"\r\n")
        self._at = _At.PREAMBLE
        self._open = False

    @property
    def finished(self) -> bool:
        """Whether the closing delimiter was seen."""
        return self._at is _At.EPILOGUE

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes of the body.

        Raises:
            WebRequestError: this is no multipart body with that boundary.
            TooLarge: the header of a part is too long.
        """
        if self.finished:
            return
        self._buffer += data
        going = True
        while going and not self.finished:
            if self._at is _At.DELIMITER:
                going = self._delimiter_end()
            elif self._at is _At.HEADER:
                header = self._header()
                going = header is not None
                if header is not None:
                    yield header
            else:
                piece, going = self._until_delimiter()
                if self._open:
                    if piece:
                        yield PartBytes(piece)
                    if going:
                        self._open = False
                        yield PartEnds()

    def _until_delimiter(self) -> tuple[bytes, bool]:
        """The bytes that are surely of this part, and whether its delimiter follows them."""
        at = self._buffer.find(self._delimiter)
        if at >= 0:
            piece = bytes(self._buffer[:at])
            del self._buffer[: at + len(self._delimiter)]
            self._at = _At.DELIMITER
            return piece, True
        sure = max(len(self._buffer) - len(self._delimiter) + 1, 0)
        piece = bytes(self._buffer[:sure])
        del self._buffer[:sure]
        return piece, False

    def _delimiter_end(self) -> bool:
        if self._buffer[:2] == b"--":
            self._at = _At.EPILOGUE
            return True
        line_end = self._buffer.find(b"\r\n")
        if line_end < 0:
            if len(self._buffer) > MAX_PART_HEADER:
                raise WebRequestError("a multipart delimiter does not end; check the boundary")
            return False
        if self._buffer[:line_end].strip(b" \t"):
            raise WebRequestError("something follows a multipart delimiter; check the boundary")
        # the line end stays: it is the empty line where a part has no header
        del self._buffer[:line_end]
        self._at = _At.HEADER
        return True

    def _header(self) -> PartBegins | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_PART_HEADER or (end < 0 and len(self._buffer) > MAX_PART_HEADER):
            raise TooLarge(f"the header of a part is longer than {MAX_PART_HEADER} bytes")
        if end < 0:
            return None
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        # The line end before the body is also the one that an empty body's delimiter begins with.
        del self._buffer[: end + 2]
        del self._buffer[:2]
        self._at, self._open = _At.BODY, True
        pairs = (line.partition(":") for line in lines if ":" in line)
        return PartBegins({name.strip().lower(): value.strip() for name, _, value in pairs})


def boundary_of(content_type: MediaType) -> str:
    """The boundary that a Content-Type names.

    Raises:
        WebRequestError: none, or one that RFC 2046 does not allow.
    """
    boundary = content_type.params.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise WebRequestError("Content-Type names no usable boundary for its parts")
    return boundary


@dataclass(frozen=True)
class Writer:
    """Delimiters and headers of a multipart answer."""

    part_type: str
    boundary: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def content_type(self) -> str:
        """Content-Type of the whole."""
        return f'multipart/related; type="{self.part_type}"; boundary={self.boundary}'

    def begin(self, content_type: str, location: str = "") -> bytes:
        """What stands before a part's bytes; `end` stands after them."""
        lines = [f"--{self.boundary}", f"Content-Type: {content_type}"]
        if location:
            lines.append(f"Content-Location: {location}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    @property
    def end(self) -> bytes:
        """What stands after a part's bytes."""
        return b"\r\n"

    @property
    def close(self) -> bytes:
        """What stands after the last part."""
        return f"--{self.boundary}--\r\n".encode("latin-1")
