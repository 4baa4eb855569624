"""Storage commitment with Orthanc, which reports on associations that it opens itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from factories import arrivals, dicom, orthanc, peers

from agent.delivery import registry
from agent.delivery.commitments import Commitments
from agent.services.commitment import CommitmentRequests
from agent.settings import DeliverySettings, Destination
from db.states import DeliveryState, StudyState
from dicom_nodes.node import Node
from dicom_nodes.scp import commitment, dispatch
from dicom_nodes.scp.server import StorageServer
from dicom_nodes.scp.settings import ServerSettings

Record = Any  # tests/integration/delivery/conftest.py

pytestmark = pytest.mark.peers

SETTINGS = DeliverySettings(first_retry_s=5, jitter=0, lease_s=300)


@dataclass
class Pair:
    """Our node and an Orthanc that knows it."""

    record: Record
    pacs: orthanc.Orthanc
    destination: Destination
    requests: CommitmentRequests


@pytest.fixture
def pair(sqlite: Record, tmp_path: Path) -> Iterator[Pair]:
    """Both listen; each knows where the other does."""
    port = peers.free_port()
    with orthanc.running(
        tmp_path / "orthanc", modalities={"agent": ("WLAGENT", "127.0.0.1", port)}
    ) as pacs:
        destination = Destination(
            name="pacs",
            kind="dicom",
            ae_title=pacs.ae_title,
            port=pacs.dicom_port,
            shadow=False,
            commitment=True,
            timeout_s=5,
        )
        routes = registry.routes([destination], "WLAGENT")
        commitments = Commitments(sqlite.sessions, routes, SETTINGS, sqlite.clock)
        node = Node(pacs.ae_title, pacs.host, pacs.dicom_port, timeout_s=5)
        requests = CommitmentRequests(
            sqlite.sessions, tmp_path / "spool", {pacs.ae_title: node}, SETTINGS
        )
        service = dispatch.combine([commitment.service(requests.keep, commitments.take)])
        server = StorageServer(
            ServerSettings(port=port),
            arrivals.handler(tmp_path, sqlite.sessions),
            contexts=service.contexts,
            evt_handlers=service.evt_handlers,
        )
        server.start()
        yield Pair(sqlite, pacs, destination, requests)
        server.stop()


def test_results_are_sent_committed_and_seen(pair: Pair) -> None:
    """Orthanc's report comes to our node; an object it lost meanwhile is sent again."""
    record = pair.record
    study = record.enqueue(("sr", "seg"), pair.destination)
    record.deliver(pair.destination)
    peers.wait_for("Orthanc's report", lambda: set(record.states()) == {DeliveryState.COMMITTED})
    assert record.prove(pair.destination) == 2
    assert record.study(study).state == StudyState.DONE
    for row in record.rows():
        assert None not in {row.sent_at, row.committed_at, row.seen_at}

    lost = record.enqueue(("sr",), pair.destination)
    record.outbox(registry.routes([pair.destination], "WLAGENT")).run_once()
    (kept,) = pair.pacs.instances(StudyInstanceUID=lost.study_uid)
    pair.pacs.request("DELETE", f"/instances/{kept['ID']}")
    record.prove(pair.destination)
    peers.wait_for("the failure report", lambda: record.states()[-1] == DeliveryState.PENDING)
    assert "did not commit to it" in record.rows()[-1].last_error


def test_what_orthanc_sent_us_is_committed_to_orthanc(pair: Pair, tmp_path: Path) -> None:
    """It asks with the store; our report says success for what is safe here."""
    ds = dicom.ct_series(1, rows=8, cols=8)[0]
    pair.pacs.upload(dicom.save(ds, tmp_path / "ct.dcm"))
    (instance,) = pair.pacs.instances()
    body = {"Resources": [instance["ID"]], "StorageCommitment": True, "Synchronous": True}
    answer = json.loads(
        pair.pacs.request("POST", "/modalities/agent/store", json.dumps(body).encode())
    )
    uid = answer["StorageCommitmentTransactionUID"]
    peers.wait_for("a request to report on", lambda: pair.requests.run_once() == 1)

    report = peers.wait_for("the report", lambda: _settled(pair.pacs, uid))

    assert report["Status"] == "Success"
    assert [one["SOPInstanceUID"] for one in report["Success"]] == [ds.SOPInstanceUID]


def _settled(pacs: orthanc.Orthanc, uid: str) -> dict[str, Any] | None:
    report: dict[str, Any] = pacs.get(f"/storage-commitment/{uid}")
    return None if report["Status"] == "Pending" else report
