"""Patient and study of a result are those of the source, byte for byte."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pydicom
import pytest
from factories import dicom, results
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from agent.errors import ComposeError
from agent.results import compose, identity
from agent.results.context import ResultContext
from inference.study import SeriesInput

NAME = "Müller^Jürgen"


def context_of(datasets: list[Dataset], folder: Path) -> ResultContext:
    """Nothing found in the given series."""
    series = results.source(datasets, folder)
    answer = results.findings(str(datasets[0].StudyInstanceUID), reports=[results.report(series)])
    return results.context(answer, [series])


def written(context: ResultContext, folder: Path, kind: str = "sr") -> Path:
    """Compose one object and write it."""
    return compose.write(compose.compose(context, [kind]), folder)[0]


def raw(path: Path, keyword: str) -> Any:
    """The stored bytes of an element."""
    return pydicom.dcmread(path).get_item(keyword).value


def with_bytes(datasets: list[Dataset], folder: Path, old: bytes, new: bytes) -> ResultContext:
    """Change bytes of the source files, which pydicom would not write."""
    assert len(old) == len(new)
    context = context_of(datasets, folder)
    for path in context.sources[0].files:
        path.write_bytes(path.read_bytes().replace(old, new))
    return context


@pytest.mark.parametrize("kind", ["sr", "sc"])
@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "GB18030"])
def test_names_keep_their_bytes_and_character_set(charset: str, kind: str, tmp_path: Path):
    """A name is not decoded and encoded again on its way into a result."""
    datasets = dicom.ct_series(n=4, rows=8, cols=8, SpecificCharacterSet=charset, PatientName=NAME)
    context = context_of(datasets, tmp_path)

    path = written(context, tmp_path / "out", kind)

    assert raw(path, "PatientName") == raw(context.sources[0].files[0], "PatientName")
    assert pydicom.dcmread(path).SpecificCharacterSet == charset
    assert str(pydicom.dcmread(path).PatientName) == NAME


def test_names_in_several_scripts_keep_their_escape_sequences(tmp_path: Path):
    """ISO 2022 names with ideographs come out with the bytes they came in with."""
    name = "Yamada^Tarou=山田^太郎"
    datasets = dicom.ct_series(
        n=4, rows=8, cols=8, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name
    )
    context = context_of(datasets, tmp_path)

    path = written(context, tmp_path / "out")

    assert raw(path, "PatientName") == raw(context.sources[0].files[0], "PatientName")
    assert str(pydicom.dcmread(path).PatientName) == name


def test_bytes_that_the_character_set_does_not_allow_are_kept(tmp_path: Path):
    """A latin letter without a declared character set comes out as it came in."""
    datasets = dicom.ct_series(
        n=4, rows=8, cols=8, SpecificCharacterSet=None, PatientName="Renee^Q", PatientID="QQ12"
    )
    context = with_bytes(datasets, tmp_path, b"Renee^Q", b"Ren\xe9e^Q")

    path = written(context, tmp_path / "out")

    assert raw(path, "PatientName").strip() == b"Ren\xe9e^Q"
    assert "SpecificCharacterSet" not in pydicom.dcmread(path)


def test_values_that_highdicom_refuses_are_copied_all_the_same(tmp_path: Path):
    """A sex of U and a birth year without a day are the PACS's business, not ours."""
    datasets = dicom.ct_series(n=4, rows=8, cols=8, PatientSex="O", PatientBirthDate="19600101")
    context = with_bytes(datasets, tmp_path, b"19600101", b"1960    ")
    for path in context.sources[0].files:
        content = path.read_bytes()
        path.write_bytes(
            content.replace(b"\x10\x00\x40\x00CS\x02\x00O ", b"\x10\x00\x40\x00CS\x02\x00U ")
        )

    result = written(context, tmp_path / "out")

    assert raw(result, "PatientBirthDate") == b"1960    "
    assert raw(result, "PatientSex").strip() == b"U"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_sources_in_other_encodings_give_the_same_identity(syntax: str, tmp_path: Path):
    """Implicit VR and big endian sources are copied value by value."""
    issuer = Dataset()
    issuer.PatientID, issuer.TypeOfPatientID = "OTHER", "TEXT"
    datasets = dicom.ct_series(
        n=4, rows=8, cols=8, PatientName=NAME, OtherPatientIDsSequence=[issuer], PatientSize="1.7"
    )
    context = context_of(datasets, tmp_path)
    for path in context.sources[0].files:
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = syntax
        little = syntax == ImplicitVRLittleEndian
        pydicom.dcmwrite(path, ds, implicit_vr=little, little_endian=little)

    result = pydicom.dcmread(written(context, tmp_path / "out"))

    assert str(result.PatientName) == NAME
    assert result.OtherPatientIDsSequence[0].PatientID == "OTHER"
    assert result.PatientSize == "1.7"


def test_study_and_patient_attributes_are_complete(tmp_path: Path):
    """Issuer, age, descriptions and order attributes are not dropped."""
    tags = {
        "IssuerOfPatientID": "HOSP",
        "PatientAge": "066Y",
        "StudyDescription": "CT HEAD WO",
        "AdmissionID": "A77",
        "PatientComments": "none",
    }
    context = context_of(dicom.ct_series(n=4, rows=8, cols=8, **tags), tmp_path)

    for kind in ("sr", "sc"):
        result = pydicom.dcmread(written(context, tmp_path / kind, kind))

        assert tags == {keyword: str(result.get(keyword)) for keyword in tags}


def test_required_attributes_that_the_source_lacks_are_empty(tmp_path: Path):
    """Type 2 attributes are supplied without inventing a value."""
    absent = dict.fromkeys(
        (k for k in identity.TYPE_2 if k not in ("StudyDate", "StudyTime")), None
    )
    context = context_of(dicom.ct_series(n=4, rows=8, cols=8, **absent), tmp_path)

    result = pydicom.dcmread(written(context, tmp_path / "out"))

    assert all(keyword in result for keyword in identity.TYPE_2)
    assert not result.PatientName
    assert not result.AccessionNumber


def test_a_study_without_a_valid_uid_is_refused(tmp_path: Path):
    """A result that could not be attached to its study is not made."""
    datasets = dicom.ct_series(n=4, rows=8, cols=8)
    context = with_bytes(
        datasets, tmp_path, str(datasets[0].StudyInstanceUID).encode()[:8], b"x.25.000"
    )

    with pytest.raises(ComposeError, match="StudyInstanceUID"):
        compose.compose(context, ["sr"])


def test_findings_of_another_study_are_refused(context: ResultContext):
    """Results never carry one study's findings under another study's patient."""
    other = dataclasses.replace(context.findings, study_uid=dicom.uid("another"))

    with pytest.raises(ComposeError, match="another study"):
        compose.compose(dataclasses.replace(context, findings=other), ["sr"])


def test_an_empty_spool_is_reported(context: ResultContext):
    """Without any readable source there is nobody to write a report about."""
    gone = SeriesInput("1.2", "CT", "", ())

    with pytest.raises(ComposeError, match="spool"):
        compose.compose(dataclasses.replace(context, sources=(gone,)), ["sr"])
