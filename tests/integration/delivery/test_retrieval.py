"""Getting studies back from a real archive: WADO-RS, C-MOVE, and what C-FIND says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import dicom, orthanc

from agent.demo.pacs import EmbeddedPacs
from dicom_nodes.node import Node
from dicom_nodes.scu.find import find_studies
from dicom_nodes.scu.move import move
from dicom_nodes.scu.store import send_directory
from dicom_nodes.web import qido, wado
from dicom_nodes.web.peer import DicomWebPeer

pytestmark = pytest.mark.peers


def test_a_study_sent_by_c_store_comes_back_by_wado_and_c_move(tmp_path: Path) -> None:
    """The same instances, pixel by pixel, over both protocols."""
    ct = dicom.ct_series(n=3)
    study_uid = ct[0].StudyInstanceUID
    sent = {str(ds.SOPInstanceUID): ds.PixelData for ds in ct}
    with (
        EmbeddedPacs(tmp_path / "receiver", ae_title="RECEIVER") as receiver,
        orthanc.running(
            tmp_path / "orthanc",
            modalities={"receiver": ("RECEIVER", "127.0.0.1", receiver.port)},
        ) as pacs,
    ):
        node = Node(pacs.ae_title, pacs.host, pacs.dicom_port)
        outcomes = send_directory(node, dicom.study_dir(tmp_path / "study", ct))
        assert all(outcome.ok for outcome in outcomes)
        (found,) = find_studies(node, AccessionNumber="ACC1")
        assert found.NumberOfStudyRelatedInstances == 3

        peer = DicomWebPeer(pacs.web_url)
        assert len(qido.find_studies(peer, PatientID="PAT1")) == 1
        fetched = {str(ds.SOPInstanceUID): ds.PixelData for ds in wado.retrieve(peer, study_uid)}
        assert fetched == sent
        series = list(wado.retrieve(peer, study_uid, ct[0].SeriesInstanceUID))
        assert len(series) == 3

        outcome = move(node, "RECEIVER", study_uid)
        assert outcome.ok
        assert {held.sop_instance_uid for held in receiver.objects(study_uid)} == set(sent)
