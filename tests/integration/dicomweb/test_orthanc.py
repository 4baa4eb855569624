"""Orthanc as sender, and as a second opinion: what both answer about the same objects.

Allowed differences: attributes that only one of them returns (IGNORED and what Orthanc 1.10 leaves
out), the order of answers, retrieve URLs, and our own priority.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from dicomweb_client.api import DICOMwebClient
from factories import dicom, dicomweb, orthanc
from pydicom import dcmread
from pydicom.dataset import Dataset

pytestmark = pytest.mark.peers

OCTETS = (("application/octet-stream", "1.2.840.10008.1.2.1"),)
AS_STORED = (("application/dicom", "*"),)
#: Retrieve URL, Instance Availability, character set of the answer, priority, transfer syntax,
#: Orthanc's own offset element (0008,0201).
IGNORED = frozenset(
    {"00081190", "00080056", "00080005", "00401003", "00083002", "00080201", "00100021"}
)


@dataclass(frozen=True)
class Both:
    """The same CT and MR in both servers; Orthanc's were sent to ours by Orthanc."""

    ours: dicomweb.Server
    pacs: orthanc.Orthanc
    datasets: list[Dataset]
    answer: dict[str, object]

    def clients(self) -> tuple[DICOMwebClient, DICOMwebClient]:
        """Of us and of Orthanc."""
        return self.ours.client(), DICOMwebClient(self.pacs.web_url)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Fill Orthanc, have it send everything to us by STOW-RS."""
    datasets = [
        *dicom.ct_series(n=3, rows=16, cols=12, patient="7"),
        *dicom.mr_series(n=2, rows=8, cols=8, patient="8"),
    ]
    with dicomweb.serving(tmp_path_factory.mktemp("ours")) as ours:
        servers = {"agent": {"Url": f"{ours.url}/", "ChunkedTransfers": True}}
        plugin = {"Enable": True, "Root": "/dicom-web/", "Servers": servers}
        folder = tmp_path_factory.mktemp("orthanc")
        with orthanc.running(folder, DicomWeb=plugin) as pacs:
            for ds in datasets:
                pacs.request("POST", "/instances", dicomweb.file_of(ds))
            order = json.dumps({"Resources": pacs.get("/studies"), "Synchronous": True}).encode()
            answer = json.loads(pacs.request("POST", "/dicom-web/servers/agent/stow", order))
            yield Both(ours, pacs, datasets, answer)


def same(ours: dict[str, object], theirs: dict[str, object]) -> bool:
    """Whether what both say is the same; an element that only one has is no contradiction."""
    shared = (set(ours) & set(theirs)) - IGNORED
    assert "0020000D" in shared
    one, other = (
        Dataset.from_json({tag: answer[tag] for tag in shared}) for answer in (ours, theirs)
    )
    return bool(one == other)


def test_orthanc_sends_by_stow(both: Both) -> None:
    """Orthanc counts all instances as stored, and every pixel arrived."""
    assert both.answer["InstancesCount"] == "5"

    ours, _ = both.clients()
    for ds in both.datasets:
        uids = (str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID))
        assert ours.retrieve_instance(*uids, media_types=AS_STORED) == ds


@pytest.mark.parametrize(
    "keys",
    [
        "",
        "PatientID=PAT7",
        "PatientName=Test*",
        "StudyDate=20261101-20261102",
        "StudyDate=20270101-",
        "ModalitiesInStudy=MR",
        "AccessionNumber=ACC*",
        "StudyDescription=nothing",
    ],
)
def test_searches_find_the_same_studies(both: Both, keys: str) -> None:
    """Matching and values agree with Orthanc's."""
    path = f"/studies?{keys}"
    contents = (both.ours.get(path).body, both.pacs.request("GET", f"/dicom-web{path}"))
    ours, theirs = (
        {one["0020000D"]["Value"][0]: one for one in json.loads(content)} for content in contents
    )

    assert set(ours) == set(theirs)
    assert all(same(ours[uid], theirs[uid]) for uid in ours)


def test_series_and_instances_agree(both: Both) -> None:
    """Below the study level too."""
    study = str(both.datasets[0].StudyInstanceUID)
    ours, theirs = both.clients()

    for find, key in (("search_for_series", "0020000E"), ("search_for_instances", "00080018")):
        one, other = (
            {match[key]["Value"][0]: match for match in getattr(client, find)(study)}
            for client in (ours, theirs)
        )
        assert set(one) == set(other)
        assert all(same(one[uid], other[uid]) for uid in one)


def test_metadata_and_frames_agree(both: Both) -> None:
    """The same header, and the same bytes of the frame."""
    ds = both.datasets[1]
    uids = (str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID))
    ours, theirs = both.clients()

    one, other = (client.retrieve_instance_metadata(*uids) for client in (ours, theirs))
    frames = [
        client.retrieve_instance_frames(*uids, [1], media_types=OCTETS) for client in (ours, theirs)
    ]

    missing = set(other) - set(one) - IGNORED
    assert missing <= {"7FE00010"}
    pixels = one.pop("7FE00010"), other.pop("7FE00010", None)  # the URIs differ
    assert pixels[0]["vr"] == "OW"
    assert same(one, other)
    assert frames[0] == frames[1] == [ds.PixelData]


def test_files_are_the_same_objects(both: Both) -> None:
    """Instances retrieved from both hold the same elements."""
    ds = both.datasets[4]
    path = (
        f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
        f"/instances/{ds.SOPInstanceUID}"
    )

    ours = dcmread(io.BytesIO(both.ours.get(path, "application/dicom").body))

    assert ours == dcmread(io.BytesIO(both.pacs.file(str(ds.SOPInstanceUID))))
