"""DICOMweb as dicomweb-client, a client that we did not write, uses it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from factories import dicom, dicom_compressed, dicomweb
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless

AS_STORED = (("application/dicom", "*"),)
EXPLICIT = "1.2.840.10008.1.2.1"


def test_what_is_stored_is_on_disk_and_in_the_record(
    server: dicomweb.Server,
) -> None:
    """A client's store ends with files in the spool, rows in the record and a response it reads."""
    made = dicom.mr_series(n=2, rows=8, cols=8, patient="stored")
    datasets = [dcmread(io.BytesIO(dicomweb.file_of(ds))) for ds in made]

    answer = server.client().store_instances(datasets)

    stored = {str(item.ReferencedSOPInstanceUID) for item in answer.ReferencedSOPSequence}
    assert stored == {str(ds.SOPInstanceUID) for ds in datasets}
    assert "FailedSOPSequence" not in answer
    study = server.study(str(datasets[0].StudyInstanceUID))
    assert study is not None
    assert (study.instance_count, study.calling_ae) == (2, "STOW-RS")
    assert len(list(server.spool.glob("*/*/*.dcm"))) >= 2
    assert list((server.spool / "incoming").iterdir()) == []


def test_a_study_is_found_with_what_viewers_need(
    filled: dicomweb.Server, ct: list[Dataset]
) -> None:
    """A search by patient gives the required attributes and counts, our results included."""
    (found,) = filled.client().search_for_studies(search_filters={"PatientID": "PAT1"})

    match = Dataset.from_json(found)
    assert match.StudyInstanceUID == ct[0].StudyInstanceUID
    assert match.PatientName == "Test^Patient1"
    assert (match.AccessionNumber, match.StudyDate, match.StudyID) == ("ACC1", "20261101", "1")
    assert list(match.ModalitiesInStudy) == ["CT", "SR"]
    assert match.NumberOfStudyRelatedSeries == 2
    assert match.NumberOfStudyRelatedInstances == 5
    assert match.RetrieveURL == f"{filled.url}/studies/{ct[0].StudyInstanceUID}"
    assert match.RequestedProcedurePriority == "MEDIUM"


def test_results_are_series_of_the_study_and_shadow_ones_are_not(
    filled: dicomweb.Server, ct: list[Dataset]
) -> None:
    """The report stands behind the images; what ran in shadow mode is not shown to readers."""
    study = str(ct[0].StudyInstanceUID)

    series = [Dataset.from_json(one) for one in filled.client().search_for_series(study)]

    assert [one.Modality for one in series] == ["CT", "SR"]
    assert [one.NumberOfSeriesRelatedInstances for one in series] == [4, 1]
    assert (series[1].SeriesNumber, series[1].SeriesDescription) == (900, "AI FINDINGS")
    (report,) = filled.client().retrieve_series(study, str(series[1].SeriesInstanceUID))
    assert report.Modality == "SR"


def test_instances_say_how_large_their_images_are(
    filled: dicomweb.Server, ct: list[Dataset]
) -> None:
    """Instance level answers come in order and carry the image attributes."""
    found = filled.client().search_for_instances(
        str(ct[0].StudyInstanceUID), str(ct[0].SeriesInstanceUID)
    )

    matches = [Dataset.from_json(one) for one in found]
    assert [one.SOPInstanceUID for one in matches] == [ds.SOPInstanceUID for ds in ct]
    assert {(one.Rows, one.Columns, one.BitsAllocated) for one in matches} == {(16, 20, 16)}


def test_a_study_comes_back_as_it_was_sent(filled: dicomweb.Server, ct: list[Dataset]) -> None:
    """Every element of every image survives the way in and out."""
    study = filled.client().retrieve_study(str(ct[0].StudyInstanceUID), media_types=AS_STORED)

    images = {str(ds.SOPInstanceUID): ds for ds in study if ds.Modality == "CT"}
    assert images == {str(ds.SOPInstanceUID): ds for ds in ct}


def test_metadata_points_to_the_pixels(filled: dicomweb.Server, ct: list[Dataset]) -> None:
    """Metadata hold everything but pixels; their URI leads to these."""
    client = filled.client()
    uids = (str(ct[1].StudyInstanceUID), str(ct[1].SeriesInstanceUID), str(ct[1].SOPInstanceUID))

    metadata = client.retrieve_instance_metadata(*uids)

    pixels = metadata.pop("7FE00010")
    assert pixels["vr"] == "OW"
    assert metadata.pop("00083002")["Value"] == ["1.2.840.10008.1.2.1"]
    expected = Dataset()
    expected.update({element.tag: element for element in ct[1] if element.tag != 0x7FE00010})
    assert Dataset.from_json(metadata) == expected
    (bulk,) = client.retrieve_bulkdata(pixels["BulkDataURI"])
    assert bulk == ct[1].PixelData


def test_frames_come_decoded_and_as_stored(server: dicomweb.Server) -> None:
    """A compressed frame is decoded for who reads octets, and handed on for who decodes it."""
    (source,) = dicom.ct_series(n=1, rows=64, cols=64, patient="compressed")
    stored = dicom_compressed.compress(source, JPEG2000Lossless)
    client = server.client()
    client.store_instances([stored])
    uids = (str(source.StudyInstanceUID), str(source.SeriesInstanceUID))

    (decoded,) = client.retrieve_instance_frames(*uids, str(source.SOPInstanceUID), [1])
    (kept,) = client.retrieve_instance_frames(
        *uids, str(source.SOPInstanceUID), [1], media_types=(("image/jp2", JPEG2000Lossless),)
    )

    assert decoded == source.PixelData
    assert kept[:4] == b"\xff\x4f\xff\x51"


def test_an_instance_is_decoded_when_asked(server: dicomweb.Server) -> None:
    """Explicit little endian is what every client reads; ``*`` leaves the bytes alone."""
    (source,) = dicom.ct_series(n=1, rows=16, cols=16, patient="rle")
    client = server.client()
    client.store_instances([dicom_compressed.compress(source, RLELossless)])
    uids = (
        str(source.StudyInstanceUID),
        str(source.SeriesInstanceUID),
        str(source.SOPInstanceUID),
    )

    decoded = client.retrieve_instance(*uids, media_types=(("application/dicom", EXPLICIT),))
    kept = client.retrieve_instance(*uids, media_types=AS_STORED)

    assert decoded.PixelData == source.PixelData
    assert kept.file_meta.TransferSyntaxUID == RLELossless


@pytest.mark.parametrize(("media_type", "kind"), [("image/png", "PNG"), ("image/jpeg", "JPEG")])
def test_pictures_show_the_window_that_was_asked(
    filled: dicomweb.Server, ct: list[Dataset], media_type: str, kind: str
) -> None:
    """A window turns values below it black and values above it white."""
    uids = (str(ct[1].StudyInstanceUID), str(ct[1].SeriesInstanceUID), str(ct[1].SOPInstanceUID))

    content = filled.client().retrieve_instance_rendered(
        *uids, media_types=(media_type,), params={"window": "300,600,linear"}
    )

    picture = Image.open(io.BytesIO(content))
    hu = ct[1].pixel_array - 1024.0
    shown = np.asarray(picture, dtype=float)
    expected = np.clip((hu - 299.5) / 599 + 0.5, 0, 1) * 255
    assert (picture.format, picture.size) == (kind, (20, 16))
    assert np.abs(shown - expected).mean() < (0.5 if kind == "PNG" else 4)


def test_thumbnails_stand_for_series_and_studies(
    filled: dicomweb.Server, ct: list[Dataset]
) -> None:
    """A study's thumbnail is an image of it, though reports are among its series."""
    study = f"/studies/{ct[0].StudyInstanceUID}"

    for path in (study, f"{study}/series/{ct[0].SeriesInstanceUID}"):
        answer = filled.get(f"{path}/thumbnail", "image/png")
        assert answer.status == 200
        assert Image.open(io.BytesIO(answer.body)).size == (20, 16)


def test_only_the_newest_version_is_served(server: dicomweb.Server) -> None:
    """A corrected image replaces the older one in searches and retrieval."""
    (first,) = dicom.ct_series(n=1, rows=8, cols=8, patient="version")
    server.stow(dicomweb.body([first]))
    first.ImageComments = "corrected"
    server.stow(dicomweb.body([first]))
    uids = (str(first.StudyInstanceUID), str(first.SeriesInstanceUID))

    found = server.client().search_for_instances(*uids)
    (served,) = server.client().retrieve_series(*uids)

    assert len(found) == 1
    assert served.ImageComments == "corrected"


def test_a_single_file_is_what_was_received(filled: dicomweb.Server, ct: list[Dataset]) -> None:
    """Without multipart around it one instance is one Part-10 file."""
    path = (
        f"/studies/{ct[0].StudyInstanceUID}/series/{ct[0].SeriesInstanceUID}"
        f"/instances/{ct[0].SOPInstanceUID}"
    )

    answer = filled.get(path, "application/dicom")

    assert answer.headers["content-type"].startswith("application/dicom; transfer-syntax=")
    assert dcmread(io.BytesIO(answer.body)) == ct[0]
