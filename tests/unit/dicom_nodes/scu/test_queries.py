"""C-ECHO, C-FIND and C-MOVE as user, against the embedded archive and against poor answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from factories import dicom, peers
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from agent.demo.pacs import EmbeddedPacs
from dicom_nodes.answers import HeldStudy
from dicom_nodes.errors import PeerBusy, PeerRefused, PeerUnavailable
from dicom_nodes.node import Node
from dicom_nodes.scu.association import associate
from dicom_nodes.scu.echo import echo
from dicom_nodes.scu.find import count_instances, find_studies, held_study
from dicom_nodes.scu.move import move
from dicom_nodes.scu.store import store


@contextmanager
def find_scp(*answers: tuple[int, Dataset | None]) -> Iterator[Node]:
    """A query SCP that gives these answers to every question."""
    entity = AE(ae_title="TESTSCP")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)

    def answer(_: Any) -> Iterator[tuple[int, Dataset | None]]:
        yield from answers

    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, answer)]
    )
    try:
        yield Node("TESTSCP", "127.0.0.1", server.server_address[1], timeout_s=5.0)
    finally:
        server.shutdown()


def test_echo_returns_when_the_peer_answers(node: Node) -> None:
    """No news is good news."""
    echo(node)


def test_every_connection_is_prompt_and_bounded(node: Node) -> None:
    """Nagle's algorithm is off and the socket has a time-out: both cost dearly when missing."""
    with associate(node, [build_context(Verification)]) as association:
        raw = association.dul.socket.socket
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert raw.gettimeout() == node.timeout_s
    assert raw.fileno() == -1, "closed at the end"


def test_echo_to_nobody_says_what_to_check() -> None:
    """The message names host, port and the mend."""
    with pytest.raises(PeerUnavailable, match="check host, port, firewall"):
        echo(Node("NOBODY", "127.0.0.1", peers.free_port(), timeout_s=2.0))


def test_studies_are_found_by_their_keys(node: Node) -> None:
    """Patient, accession, modality and wild card select; return keys are filled."""
    store(node, [*dicom.ct_series(n=2), *dicom.mr_series(n=3, patient="2")])
    (study,) = find_studies(node, PatientID="PAT2")
    assert study.AccessionNumber == "ACC2"
    assert study.ModalitiesInStudy == "MR"
    assert study.NumberOfStudyRelatedInstances == 3
    assert len(find_studies(node, AccessionNumber="ACC*")) == 2
    assert len(find_studies(node, ModalitiesInStudy="CT")) == 1
    assert len(find_studies(node, StudyDate="20261101-20261102")) == 2
    assert find_studies(node, StudyDate="-20251231") == []


def test_the_count_leaves_out_our_own_series(node: Node) -> None:
    """Results in the same study do not make it look more complete than it is."""
    source, own = dicom.ct_series(n=4), dicom.ct_series(n=2, key="2")
    store(node, [*source, *own])
    study_uid = source[0].StudyInstanceUID
    assert count_instances(node, study_uid) == 6
    assert count_instances(node, study_uid, [own[0].SeriesInstanceUID]) == 4


def test_the_count_of_an_unknown_study_is_unknown(node: Node) -> None:
    """Not zero: the archive may simply not have it yet."""
    assert count_instances(node, "1.2.3") is None


def test_a_peer_without_counts_gives_no_count() -> None:
    """A match that lacks the counts is no count of zero."""
    match = Dataset()
    match.QueryRetrieveLevel, match.StudyInstanceUID = "STUDY", "1.2.3"
    with find_scp((0xFF00, match)) as node:
        assert count_instances(node, "1.2.3") is None


def test_the_held_identity_is_that_of_the_study_asked_for(node: Node) -> None:
    """Identity comes without padding; what the peer did not say is None."""
    ct = dicom.ct_series(n=1)[0]
    store(node, [ct])
    held = held_study(node, ct.StudyInstanceUID)
    assert held is not None
    assert (held.patient_id, held.accession_number) == ("PAT1", "ACC1")
    assert held_study(node, "1.2.3") is None


def test_a_peer_that_ignores_the_study_key_is_not_believed() -> None:
    """Only the match with the same Study Instance UID counts; others are skipped."""
    other, right = Dataset(), Dataset()
    for match, uid in ((other, "1.9"), (right, "1.2.3")):
        match.QueryRetrieveLevel, match.StudyInstanceUID = "STUDY", uid
        match.PatientID = f"P{uid}"
    with find_scp((0xFF00, other), (0xFF00, right)) as node:
        assert held_study(node, "1.2.3") == HeldStudy("P1.2.3", None, None)


@pytest.mark.parametrize(("status", "error"), [(0xA700, PeerBusy), (0xC001, PeerRefused)])
def test_a_failed_query_is_an_error(status: int, error: type[Exception]) -> None:
    """A failure is never an empty answer."""
    with find_scp((status, None)) as node, pytest.raises(error, match="C-FIND failed"):
        find_studies(node)


def test_a_peer_without_c_find_refuses(tmp_path: Path) -> None:
    """A node that only stores tells so at once."""
    entity = AE(ae_title="STOREONLY")
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        node = Node("STOREONLY", "127.0.0.1", server.server_address[1], timeout_s=5.0)
        with pytest.raises(PeerRefused, match="accepts none of the SOP classes"):
            find_studies(node)
    finally:
        server.shutdown()


def test_move_sends_a_study_to_a_known_destination(
    node: Node, pacs: EmbeddedPacs, tmp_path: Path
) -> None:
    """The archive counts its sub-operations, and the instances arrive."""
    ct = dicom.ct_series(n=3)
    store(node, ct)
    with EmbeddedPacs(tmp_path / "second", ae_title="SECOND") as second:
        pacs.destinations["SECOND"] = (second.host, second.port)
        outcome = move(node, "SECOND", ct[0].StudyInstanceUID)
        assert (outcome.completed, outcome.failed, outcome.ok) == (3, 0, True)
        assert len(second.objects()) == 3


def test_move_to_an_unknown_destination_says_where_to_enter_it(node: Node) -> None:
    """0xA801 becomes a refusal with its mend."""
    store(node, dicom.ct_series(n=1))
    with pytest.raises(PeerRefused, match="does not know the move destination NOWHERE"):
        move(node, "NOWHERE", dicom.ct_series(n=1)[0].StudyInstanceUID)
