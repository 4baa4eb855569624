"""Media types: Content-Type as it is sent, Accept as it is asked (RFC 9110 section 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dicom_nodes.web.errors import WebRequestError

MAX_HEADER = 4096
ANY_SYNTAX = "*"


@dataclass(frozen=True)
class MediaType:
    """A media type or range with its parameters, names in lower case."""

    name: str
    params: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0

    @property
    def is_multipart(self) -> bool:
        """Whether many parts may answer (or were sent)."""
        return self.name in {"multipart/related", "multipart/*"}

    @property
    def part(self) -> str:
        """Type of the parts of a multipart type; empty when any will do."""
        return self.params.get("type", "").lower()

    @property
    def transfer_syntax(self) -> str:
        """Transfer syntax asked for; ``*`` = as stored; empty = the standard's default."""
        return self.params.get("transfer-syntax", "")


ANYTHING = MediaType("*/*")


def parse(text: str) -> MediaType:
    """One media type, as of a Content-Type.

    Raises:
        WebRequestError: it is none.
    """
    if len(text) > MAX_HEADER:
        raise WebRequestError("a media type is longer than it may be")
    name, *rest = [piece.strip() for piece in split(text, ";")]
    name = name.lower()
    if name == "*":  # old Java clients
        name = "*/*"
    if name.count("/") != 1:
        raise WebRequestError("not a media type; it reads type/subtype; parameter=value")
    params = {}
    for piece in rest:
        key, _, value = piece.partition("=")
        params[key.strip().lower()] = _unquoted(value.strip())
    return MediaType(name, params, _quality(params.pop("q", "1")))


def accepted(header: str, query: str = "") -> list[MediaType]:
    """What a client accepts, the most wanted first; nothing said = anything.

    Args:
        header: the Accept header.
        query: the ``accept`` query parameter of PS3.18 section 8.3.3.1, which wins.

    Raises:
        WebRequestError: it cannot be read.
    """
    text = query or header
    if not text.strip():
        return [ANYTHING]
    if len(text) > MAX_HEADER:
        raise WebRequestError("the Accept header is longer than it may be")
    ranges = [parse(piece) for piece in split(text, ",") if piece.strip()]
    wanted = [media for media in ranges if media.quality > 0]
    return sorted(wanted, key=lambda media: -media.quality)


def split(text: str, separator: str) -> Iterator[str]:
    """Split at a separator that does not stand between quotes."""
    piece: list[str] = []
    quoted = False
    for letter in text:
        if letter == '"':
            quoted = not quoted
        if letter == separator and not quoted:
            yield "".join(piece)
            piece.clear()
        else:
            piece.append(letter)
    yield "".join(piece)


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
