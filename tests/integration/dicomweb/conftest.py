"""One DICOMweb server for a module, with a CT study and results of ours in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from factories import dicom, dicomweb
from pydicom.dataset import Dataset
from pydicom.uid import UID

SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.fixture(scope="module")
def ct() -> list[Dataset]:
    """A small head CT."""
    return dicom.ct_series(n=4, rows=16, cols=20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dicomweb.Server]:
    """A server that holds nothing yet."""
    with dicomweb.serving(
        tmp_path_factory.mktemp("dicomweb"), cors_origins=("https://viewer.example",)
    ) as running:
        yield running


@pytest.fixture(scope="module")
def filled(server: dicomweb.Server, ct: list[Dataset]) -> dicomweb.Server:
    """The server with the CT, a report of ours on it, and one made in shadow mode."""
    assert server.stow(dicomweb.body(ct)).status == 200
    study = str(ct[0].StudyInstanceUID)
    server.add_result(study, report(ct[0], "live"))
    server.add_result(study, report(ct[0], "shadow"), shadow=True)
    return server


def report(source: Dataset, key: str) -> Dataset:
    """A minimal SR of the source's study."""
    ds = Dataset()
    dicom.common_modules(ds, "SR", str(source.StudyInstanceUID), key, "1")
    ds.SOPClassUID = UID(SR_CLASS)
    ds.SOPInstanceUID = UID(dicom.uid("report", source.StudyInstanceUID, key))
    ds.file_meta = dicom.new_meta(SR_CLASS, ds.SOPInstanceUID)
    ds.SeriesNumber, ds.InstanceNumber = 900, 1
    ds.SeriesDescription = "AI FINDINGS"
    return ds
