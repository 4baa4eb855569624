"""Messages: read by reference, built by field number, hostile bytes refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_nodes.hl7 import charsets, messages
from dicom_nodes.hl7.errors import Hl7Error
from dicom_nodes.hl7.messages import Message, Ref, Segment

TEXT = (
    "MSH|^~\\&|RIS|HOSP|WL|RAD|20261123||ORM^O01|ID1|P|2.3.1||||||8859/1\r\n"
    "PID|||P1^^^HOSP&1.2&ISO^MR~P2^^^OTHER||M\xfcller^A\\T\\B\n"
    'PV1||E|ED^R1^B2|""\r'
    "OBR|1||F1|CT^Head^L|||||||||rea\\F\\son\\.br\\two|||||ACC1|||||||||^^^^^S\r"
)


@pytest.mark.parametrize(
    ("ref", "value"),
    [
        ("PID-3", "P1"),
        ("PID-3.4", "HOSP"),
        ("PID-3.4.2", "1.2"),
        ("PID-5", "M\xfcller"),
        ("PID-5.2", "A&B"),
        ("PV1-3.3", "B2"),
        ("PV1-4", ""),
        ("OBR-13", "rea|son\rtwo"),
        ("OBR-27.6", "S"),
        ("MSH-9.2", "O01"),
        ("MSH-18", "8859/1"),
        ("OBR-99", ""),
        ("ZDS-1", ""),
    ],
)
def test_a_place_gives_its_text(ref: str, value: str) -> None:
    """Unescaped; the first component of a composite field; empty for what is not there."""
    message = Message.read(TEXT.encode("latin-1"))

    assert message.get(ref) == value


def test_repetitions_and_components_are_told() -> None:
    """The patient's second identifier, and all parts of a location."""
    message = Message.read(TEXT.encode("latin-1"))

    assert message.repetitions("PID-3") == 2
    assert message.get("PID-3.4", 1, 2) == "OTHER"
    assert message.components("PV1-3") == ["ED", "R1", "B2"]
    assert list(message.segments) == ["MSH", "PID", "PV1", "OBR"]


@pytest.mark.parametrize("text", ["OBR", "obr-1", "OBR-0", "OBRX-1", "OBR-1.2.3.4", ""])
def test_a_reference_that_is_none_is_refused(text: str) -> None:
    """With an example of how to write one."""
    with pytest.raises(ValueError, match="write SEGMENT-FIELD"):
        Ref.of(text)


@pytest.mark.parametrize(
    "content",
    [b"", b"MSH", b"MSH|||||||", b"MSHABCDEFG", b"PID|1\r", b"\xff\xfe", b"GET / HTTP/1.1\r\n\r\n"],
)
def test_what_is_no_message_is_refused(content: bytes) -> None:
    """In our own words, without its content."""
    with pytest.raises(Hl7Error) as caught:
        Message.read(content)

    assert "GET" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """No other exception leaves the parser, and reading fields never fails."""
    try:
        message = Message.read(b"MSH|^~\\&|" + content, "8859/1")
    except Hl7Error:
        return
    for ref in ("MSH-3", "MSH-9.1", "MSH-10", "PID-3.4.2", "OBR-27.6"):
        assert "\0" not in message.get(ref)
    message.components("PID-3")
    message.repetitions("PID-3")


@given(st.text(max_size=60))
def test_what_is_built_is_read_back(value: str) -> None:
    """Delimiters, escapes and line ends survive; control characters do not, and end no segment."""
    segment = Segment("NTE").set(1, "1").set(3, value, "second")
    header = Segment("MSH").set(2, "").set(3, "A").set(9, "ORU", "R01").set(10, "1")
    message = Message.parse(messages.text_of([header, segment]))

    kept = "".join(
        c for c in value.replace("\r\n", "\r").replace("\n", "\r") if c >= " " or c == "\r"
    )
    assert list(message.segments) == ["MSH", "NTE"]
    if kept.strip() != '""':
        assert message.get("NTE-3") == kept.strip()
    assert message.get("NTE-3.2") == "second"


def test_site_fields_go_where_they_are_told() -> None:
    """Into every segment of that name; other components stay; a missing segment is added."""
    segments = [Segment("OBR").set(27, "", "", "", "x")]
    messages.apply(segments, {Ref.of("OBR-27.6"): "S", Ref.of("ZPR-2"): "A|B"})

    assert [str(s) for s in segments] == ["OBR" + "|" * 27 + "^^^x^^S", "ZPR||A\\F\\B"]


@pytest.mark.parametrize(
    ("stated", "text"),
    [
        ("", "Müller"),
        ("ASCII", "Mueller"),
        ("8859/1", "Müller"),
        ("8859/15", "Müller €"),
        ("UNICODE UTF-8", "Müller 山田"),
        ("utf-8", "Müller"),
        ("ISO IR87", "山田"),
        ("~ISO IR87", "Yamada 山田"),
    ],
)
def test_character_sets_are_read(stated: str, text: str) -> None:
    """As MSH-18 says; what says nothing is in the site's default."""
    codec = charsets.codec(stated, charsets.UTF8)
    content = f"MSH|^~\\&|{'|' * 15}{stated}\rNTE|1||{text}\r".encode(codec)

    assert Message.read(content).get("NTE-3") == text


@pytest.mark.parametrize(
    ("stated", "content"), [("KLINGON", b"x"), ("UNICODE UTF-8", b"M\xfcller"), ("ASCII", b"\xfc")]
)
def test_what_is_not_in_its_set_is_refused(stated: str, content: bytes) -> None:
    """Nothing is guessed: a wrong name is worse than none."""
    with pytest.raises(Hl7Error, match="character set"):
        charsets.decode(content, stated, charsets.UTF8)
