"""The quick header scan reads what pydicom reads, in every encoding, or says that it is unsure."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
from factories import dicom, wire
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_nodes import headers, identifiers
from dicom_nodes.headers import Header

BIG = "1.2.840.10008.1.2.2"
ENCODINGS = {
    wire.EXPLICIT: {"implicit": False, "little": True},
    wire.IMPLICIT: {"implicit": True, "little": True},
    BIG: {"implicit": False, "little": False},
}


def sample(**tags: Any) -> Dataset:
    """A CT header without pixels."""
    (ds,) = dicom.ct_series(1, rows=8, cols=8, **tags)
    del ds.PixelData
    return ds


@pytest.mark.parametrize("syntax", ENCODINGS)
def test_the_scan_reads_every_encoding(syntax: str):
    """Explicit and implicit little endian, and big endian."""
    ds = sample(
        InstitutionName="Ward",
        IssuerOfPatientID="HOSP",
        CurrentPatientLocation="ED",
        RequestedProcedurePriority="STAT",
    )
    found = headers.scan(wire.encode(ds, **ENCODINGS[syntax]), syntax, whole=True)

    assert found == Header(
        character_set="ISO_IR 192",
        sop_class_uid=wire.CT,
        sop_instance_uid=ds.SOPInstanceUID,
        study_date="20261101",
        study_time="083000",
        accession_number="ACC1",
        modality="CT",
        manufacturer="Example",
        institution="Ward",
        station_name="SCANNER1",
        study_description="CT HEAD",
        series_description="AXIAL HEAD",
        model_name="Phantom",
        patient_name="Test^Patient1",
        patient_id="PAT1",
        issuer_of_patient_id="HOSP",
        patient_birth_date="19600101",
        patient_sex="O",
        body_part="HEAD",
        protocol="HEAD",
        study_uid=ds.StudyInstanceUID,
        series_uid=ds.SeriesInstanceUID,
        series_number="1",
        instance_number="1",
        patient_location="ED",
        ordered_priority="STAT",
    )


def test_the_scan_inflates_only_the_beginning():
    """A deflated dataset is scanned from its first bytes."""
    ds = sample()
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(wire.encode(ds)) + deflater.flush()

    found = headers.scan(deflated[: len(deflated) - 4], headers.DEFLATED)

    assert found.sop_instance_uid == ds.SOPInstanceUID


def nested(depth: int) -> Dataset:
    """A dataset with a sequence nested `depth` deep before the identifying elements."""
    item = Dataset()
    item.CodeValue = "1"
    if depth:
        item.ReferencedImageSequence = Sequence([nested(depth - 1)])
        item["ReferencedImageSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = True
    return item


@pytest.mark.parametrize("syntax", ENCODINGS)
@pytest.mark.parametrize("depth", [0, 1, 5])
def test_sequences_of_undefined_length_are_skipped(syntax: str, depth: int):
    """Nested, with and without item lengths, empty or not."""
    ds = sample()
    ds.ReferencedImageSequence = Sequence([nested(depth), Dataset(), nested(0)])
    ds["ReferencedImageSequence"].is_undefined_length = True
    ds.ReferencedStudySequence = Sequence([])
    ds["ReferencedStudySequence"].is_undefined_length = True

    found = headers.scan(wire.encode(ds, **ENCODINGS[syntax]), syntax, whole=True)

    assert found.series_uid == ds.SeriesInstanceUID


def test_a_private_sequence_of_unknown_representation_is_skipped():
    """UN of undefined length holds implicit VR items (PS3.5 6.2.2)."""
    inner = bytes.fromhex("0800 0001 0400 0000") + b"12  "
    items = bytes.fromhex("feff 00e0") + len(inner).to_bytes(4, "little") + inner
    sequence = bytes.fromhex("0900 0110") + b"UN\0\0\xff\xff\xff\xff" + items
    sequence += bytes.fromhex("feff dde0 0000 0000")
    data = wire.encode(sample())
    at = data.index(bytes.fromhex("1000 1000") + b"PN")

    found = headers.scan(data[:at] + sequence + data[at:], wire.EXPLICIT, whole=True)

    assert found.patient_id == "PAT1"


def test_a_head_that_ends_behind_the_identifiers_is_enough():
    """Large private elements behind (0020,0013) do not send us to the file."""
    ds = sample()
    data = wire.encode(ds)
    end = data.index(bytes.fromhex("2000 3200"))

    found = headers.scan(data[: end + 30], wire.EXPLICIT)

    assert found.instance_number == "1"


def test_a_head_that_ends_before_the_identifiers_is_unsure():
    """Then pydicom reads the file."""
    data = wire.encode(sample())
    with pytest.raises(headers.UnsureHeader):
        headers.scan(data[: data.index(b"PN")], wire.EXPLICIT)


BROKEN = {
    "not DICOM": b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
    "elements out of order": wire.encode(sample())[200:400] + wire.encode(sample()),
    "an element longer than the dataset": wire.encode(sample())[:-1],
    "a value representation that is none": bytes.fromhex("0800 0500") + b"??\x02\0ab" + b"\0" * 20,
    "sequences nested for ever": bytes.fromhex("0800 1511")
    + (b"SQ\0\0\xff\xff\xff\xff" + bytes.fromhex("feff00e0 ffffffff 0800 1511")) * 400,
    "an empty dataset cut off": b"\x08\x00\x05",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_the_scan_is_unsure_of_broken_datasets(data: bytes):
    """It never guesses."""
    with pytest.raises(headers.UnsureHeader):
        headers.scan(data, wire.EXPLICIT, whole=True)


def test_an_empty_dataset_has_an_empty_header():
    """The caller then misses the UIDs."""
    assert headers.scan(b"", wire.EXPLICIT, whole=True) == Header()


@pytest.mark.parametrize(
    ("charset", "raw", "expected"),
    [
        ("ISO_IR 192", "Müller^Jürgen".encode(), "Müller^Jürgen"),
        ("ISO_IR 100", "Müller^Jürgen".encode("latin-1"), "Müller^Jürgen"),
        ("ISO_IR 144", "Люк^Дядя".encode("iso8859_5"), "Люк^Дядя"),
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
        ("\\ISO 2022 IR 87", b"Yamada=\x1b$B;3ED\x1b(B", "Yamada=山田"),
        ("", "Müller".encode("latin-1"), "Müller"),
        ("ISO_IR 6", "é".encode("latin-1"), "é"),
        ("ISO_IR 192", "Müller".encode("latin-1"), "Müller"),
        ("ISO_NONSENSE", b"M\xfcller", "Müller"),
        ("ISO_IR 192", b"Plain\0 ", "Plain"),
    ],
)
def test_names_are_decoded_and_never_refused(charset: str, raw: bytes, expected: str):
    """By the stated character set; by Latin-1 where that is wrong or missing."""
    encoded = [(b"\x08\x00\x05\x00CS", charset.encode()), (b"\x10\x00\x10\x00PN", raw)]
    data = b"".join(head + len(value).to_bytes(2, "little") + value for head, value in encoded)

    assert headers.scan(data, wire.EXPLICIT, whole=True).patient_name == expected


def test_pydicom_reads_what_the_scan_leaves(tmp_path: Path):
    """`read` gives the same header as `scan`."""
    (ds,) = dicom.ct_series(1, rows=8, cols=8)
    path = dicom.save(ds, tmp_path / "a.dcm")

    assert headers.read(path) == headers.scan(wire.encode(ds), wire.EXPLICIT)


def test_a_file_that_nobody_reads_is_named_unreadable(tmp_path: Path):
    """One error of the package for whatever pydicom raises."""
    path = tmp_path / "a.dcm"
    path.write_bytes(b"\x89PNG" * 100)
    with pytest.raises(headers.UnreadableHeader):
        headers.read(path)


@pytest.mark.parametrize(
    ("text", "expected"), [("7", 7), (" -3 ", -3), ("", None), ("x", None), ("9" * 12, None)]
)
def test_whole_numbers_fit_the_record(text: str, expected: int | None):
    """What is no integer of the database is absent."""
    assert headers.whole_number(text) == expected


@pytest.mark.parametrize(
    ("uid", "valid", "itself"),
    [
        ("1.2.840.10008.1.1", True, True),
        ("2.25.0", True, True),
        ("1.02", False, True),
        ("", False, False),
        ("1..2", False, False),
        (".", False, False),
        ("..", False, False),
        ("1/../../etc", False, False),
        ("1.2\0", False, False),
        ("1." * 40 + "1", False, False),
        ("1.2.AB", False, False),
    ],
)
def test_unusual_uids_never_name_a_directory(uid: str, valid: bool, itself: bool):
    """A hash stands in; valid UIDs name themselves."""
    name = identifiers.safe_name(uid)

    assert identifiers.is_valid_uid(uid) is valid
    assert (name == uid) is itself
    assert name.replace(".", "").isalnum()
