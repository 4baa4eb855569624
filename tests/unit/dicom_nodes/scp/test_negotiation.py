"""Negotiation by hand gives what pynetdicom reads, and decides by our preferences."""

from __future__ import annotations

import struct

import pytest
from factories import wire
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from dicom_nodes import identifiers, presentation
from dicom_nodes.scp import negotiation

MANY = [
    (2 * n + 1, str(cx.abstract_syntax), [str(uid) for uid in ALL_TRANSFER_SYNTAXES])
    for n, cx in enumerate(AllStoragePresentationContexts[:128])
]
JPEG_2000, JPEG, UNKNOWN = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50", "1.2.3.4"
FIND = "1.2.840.10008.5.1.4.1.2.1.1"


@pytest.mark.parametrize("contexts", [wire.DEFAULT_CONTEXTS, MANY], ids=["few", "many"])
def test_pynetdicom_reads_the_answer(contexts: wire.Contexts):
    """Every field of the A-ASSOCIATE-AC, for three contexts and for 128 of 45 syntaxes."""
    request = wire.associate_rq(contexts, calling="CT 1", called="US")
    answer = A_ASSOCIATE_AC()
    answer.decode(negotiation.negotiate(request, 65536).answer)

    asked = A_ASSOCIATE_RQ()
    asked.decode(request)
    results = {cx.presentation_context_id: cx for cx in answer.presentation_context}
    information = {type(item).__name__: item for item in answer.user_information.user_data}
    assert list(results) == [cx.presentation_context_id for cx in asked.presentation_context]
    assert all(cx.result == 0 for cx in results.values())
    assert answer.application_context_name == asked.application_context_name
    assert answer.encode() == negotiation.negotiate(request, 65536).answer
    assert answer.encode()[10:42] == request[10:42]
    assert information["MaximumLengthSubItem"].maximum_length_received == 65536
    implementation = information["ImplementationClassUIDSubItem"]
    assert implementation.implementation_class_uid == identifiers.IMPLEMENTATION_CLASS_UID


@pytest.mark.parametrize(
    ("abstract", "offered", "expected"),
    [
        (wire.CT, (wire.IMPLICIT, wire.EXPLICIT), wire.EXPLICIT),
        (wire.CT, (JPEG, JPEG_2000), JPEG_2000),
        (wire.CT, ("1.2.840.10008.1.2.2", wire.IMPLICIT), wire.IMPLICIT),
        (wire.CT, (UNKNOWN, JPEG), JPEG),
        ("1.3.12.2.1107.5.9.1", (wire.IMPLICIT,), wire.IMPLICIT),
        ("1.2.840.10008.5.1.4.1.1.999", (wire.IMPLICIT,), wire.IMPLICIT),
        (wire.VERIFICATION, (wire.IMPLICIT,), wire.IMPLICIT),
        (wire.CT, (UNKNOWN,), 4),
        (FIND, (wire.IMPLICIT,), 3),
    ],
)
def test_contexts_are_decided_by_class_and_preference(
    abstract: str, offered: tuple[str, ...], expected: str | int
):
    """Storage of any kind and verification; the best known syntax; else the reason of 9-18."""
    negotiated = negotiation.negotiate(wire.associate_rq([(5, abstract, offered)]), 16384)
    answer = A_ASSOCIATE_AC()
    answer.decode(negotiated.answer)
    (item,) = answer.presentation_context

    assert negotiated.proposed == {abstract}
    if isinstance(expected, str):
        assert negotiated.contexts == {5: negotiation.Context(abstract, expected)}
        assert (item.result, item.transfer_syntax) == (0, expected)
    else:
        assert negotiated.contexts == {}
        assert item.result == expected


def test_padded_uids_are_understood():
    """Some peers pad UIDs to even length with NUL, though PS3.8 forbids it."""
    padded = wire.associate_rq([(1, wire.CT + "\0", (wire.EXPLICIT + "\0",))])

    assert negotiation.negotiate(padded, 16384).contexts[1].abstract_syntax == wire.CT


def context(context_id: int, body: bytes) -> bytes:
    """A presentation context item."""
    return struct.pack(">BBH", 0x20, 0, 4 + len(body)) + bytes((context_id, 0, 0, 0)) + body


def sub_item(kind: int, uid: str) -> bytes:
    """A syntax sub-item."""
    return struct.pack(">BBH", kind, 0, len(uid)) + uid.encode()


ABSTRACT, TRANSFER = sub_item(0x30, wire.CT), sub_item(0x40, wire.EXPLICIT)
BROKEN = {
    "an item longer than the PDU": b"\x20\0\xff\xff\1\0\0\0",
    "an item that is cut off": b"\x20\0\0",
    "a sub-item longer than its item": context(1, b"\x30\0\xff\xff1.2"),
    "a context of nothing": b"\x20\0\0\0",
    "a context shorter than its head": b"\x20\0\0\2\1\0",
    "a context without abstract syntax": context(1, TRANSFER),
    "a context without transfer syntax": context(1, ABSTRACT),
    "an even context id": context(2, ABSTRACT + TRANSFER),
    "a context id used twice": context(1, ABSTRACT + TRANSFER) * 2,
}


@pytest.mark.parametrize("items", BROKEN.values(), ids=BROKEN.keys())
def test_an_impossible_request_is_refused(items: bytes):
    """With the package's error, so that the server aborts."""
    request = wire.pdu(1, wire.associate_rq()[6:74] + items)
    with pytest.raises(negotiation.InvalidRequest):
        negotiation.negotiate(request, 16384)


def test_preferences_hold_every_known_syntax_once():
    """No syntax is forgotten or listed twice; big endian comes last."""
    assert sorted(presentation.TRANSFER_SYNTAXES) == sorted(map(str, ALL_TRANSFER_SYNTAXES))
    assert presentation.TRANSFER_SYNTAXES[-1] == presentation.EXPLICIT_BIG
