"""Association negotiation as acceptor: read the A-ASSOCIATE-RQ, build the A-ASSOCIATE-AC.

pynetdicom reads and writes the PDUs. Its result depends on everything behind the AE titles only,
so it is kept: modalities that open one association per image propose the same contexts each time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext

from dicom_nodes import identifiers, presentation
from dicom_nodes.errors import NodeError

MAX_REQUEST_BYTES = 512 * 1024
"""128 contexts with every known transfer syntax are about 150 KB."""

_AE_FIELDS = slice(10, 42)  # called and calling AE title, PS3.8 table 9-11
_REQUEST, _FIXED = 0x01, 74
_ACCEPTED, _UNKNOWN_CLASS, _UNKNOWN_SYNTAX = 0, 3, 4  # PS3.8 table 9-18


class InvalidRequest(NodeError):
    """The peer's first PDU is no A-ASSOCIATE-RQ that can be read."""

    permanent = True


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
        answer: the A-ASSOCIATE-AC, AE titles left blank.
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


def answer_to(request: bytes, negotiated: Negotiated) -> bytes:
    """Return the A-ASSOCIATE-AC with the AE titles of this request, as PS3.8 table 9-17 asks."""
    answer = bytearray(negotiated.answer)
    answer[_AE_FIELDS] = request[_AE_FIELDS]
    return bytes(answer)


class Negotiator:
    """Answers proposals; remembers its latest answers."""

    def __init__(self, max_pdu: int, remembered: int = 32) -> None:
        self._max_pdu = max_pdu
        self._cached = functools.lru_cache(maxsize=remembered)(self._negotiate)

    def negotiate(self, request: bytes) -> Negotiated:
        """Decide on the proposed contexts.

        Raises:
            InvalidRequest: the PDU cannot be decoded.
        """
        return self._cached(request[_FIXED:])

    def _negotiate(self, items: bytes) -> Negotiated:
        neutral = b"\x01\x00" + (len(items) + _FIXED - 6).to_bytes(4, "big")
        neutral += b"\x00\x01\x00\x00" + b"X".ljust(16) * 2 + b"\0" * 32 + items
        try:
            pdu = A_ASSOCIATE_RQ()
            pdu.decode(neutral)
            proposal = pdu.to_primitive()
            results = [_decide(cx) for cx in proposal.presentation_context_definition_list]
            answer = self._accept(proposal, results)
        except Exception as error:
            raise InvalidRequest(
                f"the A-ASSOCIATE-RQ cannot be decoded ({type(error).__name__})"
            ) from error
        return Negotiated(
            contexts={
                cx.context_id: Context(str(cx.abstract_syntax), str(cx.transfer_syntax[0]))
                for cx in results
                if cx.result == _ACCEPTED
            },
            proposed=frozenset(str(cx.abstract_syntax) for cx in results),
            answer=answer,
        )

    def _accept(self, proposal: Any, results: list[Any]) -> bytes:
        answer = A_ASSOCIATE()
        answer.application_context_name = proposal.application_context_name
        answer.calling_ae_title = answer.called_ae_title = "X"
        answer.result, answer.result_source = 0, 1
        answer.presentation_context_definition_results_list = results
        length = MaximumLengthNotification()
        length.maximum_length_received = self._max_pdu
        implementation = ImplementationClassUIDNotification()
        implementation.implementation_class_uid = UID(identifiers.IMPLEMENTATION_CLASS_UID)
        version = ImplementationVersionNameNotification()
        version.implementation_version_name = identifiers.IMPLEMENTATION_VERSION
        answer.user_information = [length, implementation, version]
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(answer)
        encoded: bytes = pdu.encode()
        return encoded


def _decide(proposed: Any) -> Any:
    context = PresentationContext()
    context.context_id = proposed.context_id
    context.abstract_syntax = proposed.abstract_syntax
    offered = [str(syntax) for syntax in proposed.transfer_syntax]
    sop_class = str(proposed.abstract_syntax)
    chosen = presentation.choose_syntax(offered)
    if not (sop_class == presentation.VERIFICATION or presentation.is_storage(sop_class)):
        context.result = _UNKNOWN_CLASS
    else:
        context.result = _ACCEPTED if chosen else _UNKNOWN_SYNTAX
    context.transfer_syntax = [UID(chosen or offered[0])]
    return context


def _printable(field: bytes) -> str:
    text = field.decode("latin-1").strip(" \0")
    return "".join(ch if " " <= ch <= "~" else "?" for ch in text)
