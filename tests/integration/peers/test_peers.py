"""The throw-away peers themselves: they start, keep what they are given, and go."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from factories import dicom, orthanc, peers, postgres

pytestmark = pytest.mark.peers


def test_orthanc_keeps_an_instance_over_a_restart(tmp_path: Path) -> None:
    """What was uploaded is found again by SOP UID after stop and start."""
    instance = dicom.ct_series(n=1)[0]
    path = dicom.save(instance, tmp_path / "ct.dcm")
    with orthanc.running(tmp_path / "pacs") as pacs:
        pacs.upload(path)
        pacs.stop()
        assert not peers.listens(pacs.dicom_port)
        pacs.start()
        assert pacs.sop_uids() == [instance.SOPInstanceUID]


def test_a_postgresql_database_is_empty_and_takes_a_table() -> None:
    """Every database() is a new one, reachable by SQLAlchemy."""
    with postgres.running() as cluster:
        for _ in range(2):
            engine = sa.create_engine(cluster.database())
            with engine.begin() as connection:
                connection.execute(sa.text("create table t (a int)"))
            engine.dispose()
