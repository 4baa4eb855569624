"""The embedded archive: one file per object, whatever happens to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import dicom
from pydicom.uid import ParametricMapStorage, SegmentationStorage

from agent.demo.pacs import EmbeddedPacs
from dicom_nodes.errors import PeerRefused
from dicom_nodes.node import Node
from dicom_nodes.scu.echo import echo
from dicom_nodes.scu.find import find_studies
from dicom_nodes.scu.store import store


def node_of(pacs: EmbeddedPacs) -> Node:
    """How to reach it."""
    return Node(pacs.ae_title, pacs.host, pacs.port, timeout_s=10.0)


def files(pacs: EmbeddedPacs) -> list[str]:
    """Everything on its disk."""
    return sorted(path.name for path in pacs.directory.rglob("*") if path.is_file())


def test_an_object_sent_twice_is_one_file_the_first_one(tmp_path: Path) -> None:
    """Also when the second carries other bytes."""
    first = dicom.ct_series(n=1)[0]
    second = dicom.ct_series(n=1, SeriesDescription="OTHER")[0]
    with EmbeddedPacs(tmp_path) as pacs:
        assert all(outcome.ok for outcome in store(node_of(pacs), [first, second, first]))
        assert files(pacs) == [f"{first.SOPInstanceUID}.dcm"]
        (held,) = pacs.objects(first.StudyInstanceUID)
        assert held.tags["SeriesDescription"] == "AXIAL HEAD"


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """Files are the truth; the port stays, so that peers find it again."""
    ds = dicom.ct_series(n=1)[0]
    pacs = EmbeddedPacs(tmp_path).start()
    store(node_of(pacs), [ds])
    port = pacs.port
    pacs.stop()
    (tmp_path / "1" / "2").mkdir(parents=True)
    (tmp_path / "1" / "2" / "broken.dcm").write_bytes(b"no DICOM")
    with EmbeddedPacs(tmp_path, port=port) as again:
        echo(node_of(again))
        assert [held.sop_instance_uid for held in again.objects()] == [ds.SOPInstanceUID]


@pytest.mark.parametrize("sop_class", [SegmentationStorage, ParametricMapStorage])
def test_result_classes_are_accepted(tmp_path: Path, sop_class: str) -> None:
    """Also those a default list of contexts leaves out."""
    ds = dicom.ct_series(n=1, SOPClassUID=sop_class)[0]
    ds.file_meta.MediaStorageSOPClassUID = sop_class
    with EmbeddedPacs(tmp_path) as pacs:
        assert store(node_of(pacs), [ds])[0].ok
        assert pacs.objects()[0].sop_class_uid == sop_class


@pytest.mark.filterwarnings("ignore:.*(for|allowed for) VR UI")
@pytest.mark.parametrize("uid", ["../../etc", "..", "1." * 40])
def test_a_uid_that_is_no_file_name_is_refused(tmp_path: Path, uid: str) -> None:
    """Nothing is written outside the directory."""
    ds = dicom.ct_series(n=1)[0]
    ds.StudyInstanceUID = uid
    with EmbeddedPacs(tmp_path / "archive") as pacs:
        (outcome,) = store(node_of(pacs), [ds])
        assert isinstance(outcome.error, PeerRefused)
        assert files(pacs) == []


def test_queries_match_as_the_standard_says(tmp_path: Path) -> None:
    """Lists of UIDs, wild cards, ranges, and empty keys that match everything."""
    head, other = dicom.ct_series(n=1)[0], dicom.mr_series(n=2, patient="2")[0]
    with EmbeddedPacs(tmp_path) as pacs:
        node = node_of(pacs)
        store(node, [head, other])
        both = f"{head.StudyInstanceUID}\\{other.StudyInstanceUID}"
        assert len(find_studies(node, StudyInstanceUID=both)) == 2
        assert len(find_studies(node, PatientID="PAT?")) == 2
        assert len(find_studies(node, PatientID="")) == 2
        assert len(find_studies(node, StudyDate="20261031-")) == 2
        assert find_studies(node, PatientID="pat1") == []
        assert find_studies(node, PatientID="PAT[12]") == []
