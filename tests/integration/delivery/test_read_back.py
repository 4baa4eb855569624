"""Delivered means found again: the embedded archive, on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from factories import dicom

from agent.demo.pacs import EmbeddedPacs
from agent.settings import Destination
from db.models import Delivery
from db.states import DeliveryState, StudyState
from dicom_nodes.node import Node
from dicom_nodes.scu import store

Record = Any  # tests/integration/delivery/conftest.py


def test_a_result_is_delivered_when_the_archive_shows_it(record: Record, tmp_path: Path) -> None:
    """Sent, then seen; a study that was merged in the archive meanwhile raises the alarm."""
    with EmbeddedPacs(tmp_path / "pacs") as pacs:
        destination = Destination(
            name="pacs", kind="dicom", ae_title=pacs.ae_title, port=pacs.port, shadow=False
        )
        study = record.enqueue(("sr", "seg"), destination)
        record.deliver(destination)
        assert record.states() == [DeliveryState.DELIVERED] * 2
        assert record.study(study).state == StudyState.DONE
        assert all(row.seen_at for row in record.rows())

        merged = record.enqueue(("sr",), destination)
        other = dicom.ct_series(1, study_uid=merged.study_uid, patient="999")
        store.store(Node(pacs.ae_title, pacs.host, pacs.port), other)
        with record.sessions.begin() as session:  # as if it was sent just before the merge
            sent = sa.update(Delivery).where(Delivery.study_id == merged.id)
            session.execute(sent.values(state=DeliveryState.SENT, sent_at=record.clock()))
        _hold(pacs, record, merged.study_uid)
        record.prove(destination)

    row = record.rows()[-1]
    assert row.state == DeliveryState.DEAD
    assert "under another patient ID and accession number" in row.last_error
    assert record.study(merged).state == StudyState.FAILED


def _hold(pacs: EmbeddedPacs, record: Record, study_uid: str) -> None:
    """The archive holds the object too; the study's identity is that of its first instance."""
    (path,) = [p for p in record.files() if study_uid in p.read_bytes().decode("latin-1")]
    store.store(Node(pacs.ae_title, pacs.host, pacs.port), [path])
