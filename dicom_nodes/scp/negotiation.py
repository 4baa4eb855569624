"""Association negotiation as acceptor: read the A-ASSOCIATE-RQ, build the A-ASSOCIATE-AC.

By hand (PS3.8 section 9.3.2 and 9.3.3, annex D of PS3.7), because it happens once for every image
with modalities that open one association each: pynetdicom needs 14 ms for 128 contexts only to
decode and encode, and 60 ms more to copy its own. The tests hold both to the same result.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dicom_nodes import identifiers, presentation
from dicom_nodes.errors import NodeError

MAX_REQUEST_BYTES = 512 * 1024
"""128 contexts with every known transfer syntax are about 150 KB."""

_REQUEST, _ACCEPT, _FIXED = 0x01, 0x02, 74
_APPLICATION_CONTEXT, _CONTEXT_RQ, _CONTEXT_AC, _USER_INFORMATION = 0x10, 0x20, 0x21, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_MAXIMUM_LENGTH, _IMPLEMENTATION_CLASS, _IMPLEMENTATION_VERSION = 0x51, 0x52, 0x55
_ACCEPTED, _UNKNOWN_CLASS, _UNKNOWN_SYNTAX = 0, 3, 4  # PS3.8 table 9-18
_ITEM = struct.Struct(">BxH")


class InvalidRequest(NodeError):
    """The peer's first PDU is no A-ASSOCIATE-RQ that can be read."""

    permanent = True


@dataclass(frozen=True)
class Proposed:
    """A presentation context as the peer proposes it."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class Negotiated:
    """What was agreed.

    Attributes:
        contexts: accepted contexts by id.
        proposed: abstract syntaxes that the peer proposed.
        answer: the A-ASSOCIATE-AC.
    """

    contexts: Mapping[int, Context]
    proposed: frozenset[str]
    answer: bytes


def read_request(receive_exactly: Callable[[int], bytes]) -> bytes:
    """Read one A-ASSOCIATE-RQ from the connection.

    Raises:
        InvalidRequest: it is something else, or too long.
    """
    head = receive_exactly(6)
    length = int.from_bytes(head[2:], "big")
    if head[0] != _REQUEST or not _FIXED - 6 <= length <= MAX_REQUEST_BYTES:
        raise InvalidRequest("the connection does not begin with a usable A-ASSOCIATE-RQ")
    return head + receive_exactly(length)


def ae_titles(request: bytes) -> tuple[str, str]:
    """Return (calling, called) AE title of an A-ASSOCIATE-RQ, as printable text."""
    called, calling = request[10:26], request[26:42]
    return _printable(calling), _printable(called)


def negotiate(request: bytes, max_pdu: int) -> Negotiated:
    """Decide on the proposed contexts; extra services are not ours to accept.

    Raises:
        InvalidRequest: the PDU cannot be decoded.
    """
    application_context, proposals = _decode(request)
    accepted: dict[int, Context] = {}
    items = [_item(_APPLICATION_CONTEXT, application_context)]
    for proposal in proposals:
        result, syntax = _decide(proposal)
        if result == _ACCEPTED:
            accepted[proposal.context_id] = Context(proposal.abstract_syntax, syntax)
        body = bytes((proposal.context_id, 0, result, 0))
        items.append(_item(_CONTEXT_AC, body + _item(_TRANSFER_SYNTAX, syntax.encode("latin-1"))))
    items.append(_user_information(max_pdu))
    # PS3.8 table 9-17: the fields of the AE titles are sent back as they came
    body = request[6:10] + request[10:_FIXED] + b"".join(items)
    return Negotiated(
        contexts=accepted,
        proposed=frozenset(proposal.abstract_syntax for proposal in proposals),
        answer=struct.pack(">BxL", _ACCEPT, len(body)) + body,
    )


def _decode(request: bytes) -> tuple[bytes, list[Proposed]]:
    application_context, proposals = b"", []
    for kind, start, end in _items(request, _FIXED, len(request)):
        if kind == _APPLICATION_CONTEXT:
            application_context = request[start:end]
        elif kind == _CONTEXT_RQ:
            proposals.append(_proposed(request, start, end))
    if len({proposal.context_id for proposal in proposals}) != len(proposals):
        raise InvalidRequest("the A-ASSOCIATE-RQ uses a presentation context id twice")
    return application_context, proposals


def _proposed(request: bytes, start: int, end: int) -> Proposed:
    if end - start < 4:
        raise InvalidRequest("the A-ASSOCIATE-RQ is cut off")
    abstract, syntaxes = "", []
    for kind, begin, stop in _items(request, start + 4, end):
        if kind == _ABSTRACT_SYNTAX:
            abstract = identifiers.clean_uid(request[begin:stop])
        elif kind == _TRANSFER_SYNTAX:
            syntaxes.append(identifiers.clean_uid(request[begin:stop]))
    context_id = request[start]
    if not abstract or not syntaxes or context_id % 2 == 0:
        raise InvalidRequest("the A-ASSOCIATE-RQ holds an impossible presentation context")
    return Proposed(context_id, abstract, tuple(syntaxes))


def _items(data: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (type, begin, end) of the items between two offsets."""
    while offset < end:
        if end - offset < _ITEM.size:
            raise InvalidRequest("the A-ASSOCIATE-RQ is cut off")
        kind, length = _ITEM.unpack_from(data, offset)
        begin, offset = offset + _ITEM.size, offset + _ITEM.size + length
        if offset > end:
            raise InvalidRequest("an item of the A-ASSOCIATE-RQ exceeds what holds it")
        yield kind, begin, offset


def _decide(proposal: Proposed) -> tuple[int, str]:
    """Return (result, transfer syntax); the syntax has no meaning in a refusal."""
    chosen = presentation.choose_syntax(proposal.transfer_syntaxes)
    sop_class = proposal.abstract_syntax
    if not (sop_class == presentation.VERIFICATION or presentation.is_storage(sop_class)):
        return _UNKNOWN_CLASS, proposal.transfer_syntaxes[0]
    if chosen is None:
        return _UNKNOWN_SYNTAX, proposal.transfer_syntaxes[0]
    return _ACCEPTED, chosen


def _user_information(max_pdu: int) -> bytes:
    return _item(
        _USER_INFORMATION,
        _item(_MAXIMUM_LENGTH, max_pdu.to_bytes(4, "big"))
        + _item(_IMPLEMENTATION_CLASS, identifiers.IMPLEMENTATION_CLASS_UID.encode())
        + _item(_IMPLEMENTATION_VERSION, identifiers.IMPLEMENTATION_VERSION.encode()),
    )


def _item(kind: int, body: bytes) -> bytes:
    return _ITEM.pack(kind, len(body)) + body


def _printable(field: bytes) -> str:
    text = field.decode("latin-1").strip(" \0")
    return "".join(ch if " " <= ch <= "~" else "?" for ch in text)
