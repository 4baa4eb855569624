"""The multipart parser and writer, media types and file meta: any cut, any order, any nonsense."""

from __future__ import annotations

import contextlib

import pytest
from factories import dicom, dicomweb
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_nodes.web import media, part10
from dicom_nodes.web.errors import WebRequestError
from dicom_nodes.web.media import MediaType
from dicom_nodes.web.multipart import Parser, PartBegins, PartBytes, PartEnds, Writer, boundary_of


def parts_of(pieces: list[bytes], boundary: str = "b") -> tuple[list[bytes], bool]:
    """The bodies of the whole parts, and whether the end was seen."""
    parser, whole, current = Parser(boundary), [], b""
    for piece in pieces:
        for event in parser.feed(piece):
            match event:
                case PartBegins():
                    current = b""
                case PartBytes(data):
                    current += data
                case PartEnds():
                    whole.append(current)
    return whole, parser.finished


@settings(max_examples=60, deadline=None)
@given(
    contents=st.lists(st.binary(max_size=60) | st.just(b"\r\n--"), max_size=4),
    size=st.integers(1, 50),
)
def test_what_is_written_is_read_however_it_is_cut(contents: list[bytes], size: int) -> None:
    """A body of any parts, in pieces of any size, gives the parts back."""
    writer = Writer("application/dicom", boundary="0123456789abcdef")
    body = b"".join(writer.begin("application/dicom") + one + writer.end for one in contents)
    body += writer.close

    pieces = [body[at : at + size] for at in range(0, len(body), size)]

    assert parts_of(pieces, writer.boundary) == (contents, True)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_nonsense_is_refused_or_empty(body: bytes) -> None:
    """Whatever comes, nothing but our own error is raised."""
    with contextlib.suppress(WebRequestError):
        parts_of([b"--b\r\n" + body])


def test_a_part_without_its_end_is_not_whole() -> None:
    """A cut body gives the parts before the cut, and says that it is not finished."""
    assert parts_of([b"--b\r\n\r\none\r\n--b\r\n\r\ntw"]) == ([b"one"], False)


def test_a_header_without_end_is_refused() -> None:
    """A part's header may not eat memory."""
    with pytest.raises(WebRequestError, match="header"):
        parts_of([b"--b\r\n", b"x: y\r\n" * 5000])


@pytest.mark.parametrize("boundary", ["", "a" * 201, "ends with space ", "new\nline", 'quo"te'])
def test_unusable_boundaries_are_refused(boundary: str) -> None:
    """A boundary is what RFC 2046 allows, but may be longer: Orthanc's are."""
    with pytest.raises(WebRequestError):
        boundary_of(MediaType("multipart/related", {"boundary": boundary}))


def test_accept_is_read_in_the_order_of_preference() -> None:
    """Quality decides; what is refused with q=0 is left out; quotes hold separators."""
    header = 'image/png;q=0.5, multipart/related; type="a/b;c, d"; transfer-syntax=*, x/y;q=0'

    first, second = media.accepted(header)

    assert (first.name, first.part, first.transfer_syntax) == ("multipart/related", "a/b;c, d", "*")
    assert second.name == "image/png"
    assert media.accepted("") == [media.ANYTHING]
    assert media.accepted("image/png", "image/jpeg")[0].name == "image/jpeg"


def test_file_meta_is_read_as_soon_as_it_is_there() -> None:
    """Every cut before the dataset asks for more; the dataset's place is exact."""
    (ds,) = dicom.ct_series(n=1, rows=4, cols=4)
    content = dicomweb.file_of(ds)
    meta = part10.read_meta(content)

    assert meta is not None
    assert (meta.sop_instance_uid, meta.transfer_syntax_uid) == (
        ds.SOPInstanceUID,
        "1.2.840.10008.1.2.1",
    )
    assert content[meta.dataset_offset : meta.dataset_offset + 4] == b"\x08\x00\x05\x00"
    assert all(part10.read_meta(content[:at]) is None for at in range(meta.dataset_offset))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_file_meta_of_nonsense_is_refused(tail: bytes) -> None:
    """Hostile file meta ends in our own error, or asks for more."""
    with contextlib.suppress(part10.NotPart10):
        part10.read_meta(b"\0" * 128 + b"DICM\x02\0" + tail)
