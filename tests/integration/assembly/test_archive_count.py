"""The archive's own count ends the waiting early: over C-FIND and QIDO-RS, against Orthanc."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import dicom, orthanc, rows
from factories.orthanc import Orthanc

from agent import config, database, foundation, sweeps
from agent.assembly import sweep
from agent.clock import utc_now
from db import engine as db_engine
from db.models import Study
from db.states import StudyState

pytestmark = pytest.mark.peers
INSTANCES = 4


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orthanc, str]]:
    """Orthanc with one CT study; gives its StudyInstanceUID too."""
    directory = tmp_path_factory.mktemp("orthanc")
    with orthanc.running(directory) as running:
        series = dicom.ct_series(n=INSTANCES, rows=16, cols=16)
        for number, dataset in enumerate(series):
            path = directory / f"{number}.dcm"
            dicom.save(dataset, path)
            running.upload(path)
        yield running, str(series[0].StudyInstanceUID)


@pytest.mark.parametrize("kind", ["dicom", "dicomweb"])
@pytest.mark.parametrize(("received", "assembled"), [(INSTANCES, True), (INSTANCES - 1, False)])
def test_a_study_is_complete_when_the_archive_holds_no_more(
    archive: tuple[Orthanc, str], tmp_path: Path, kind: str, received: int, assembled: bool
) -> None:
    """All that the archive counts are here: no need to wait for the quiet period; else wait on."""
    peer, study_uid = archive
    base = foundation.lay(_config(tmp_path, peer, kind), utc_now, None)
    now = utc_now()
    with base.sessions.begin() as session:
        study = rows.study(
            session,
            study_uid=study_uid,
            state=StudyState.RECEIVING,
            revision=0,
            instance_count=received,
            assembled_count=0,
            first_instance_at=now - dt.timedelta(seconds=9),
            last_instance_at=now - dt.timedelta(seconds=4),
        )

    sweep.sweep(base.sessions, base.config.assembly, now, sweeps.count_instances_at(base))

    with base.sessions() as session:
        after = session.get_one(Study, study.id)
        assert after.expected_count == INSTANCES
        assert (after.state == StudyState.ASSEMBLED) is assembled
    base.engine.dispose()


def _config(data_dir: Path, peer: Orthanc, kind: str) -> config.Config:
    address = (
        {"ae_title": peer.ae_title, "host": peer.host, "port": peer.dicom_port}
        if kind == "dicom"
        else {"url": peer.web_url}
    )
    loaded = config.from_mapping(
        {
            "storage": {"data_dir": str(data_dir)},
            "assembly": {"quiet_s": 60, "count_from": "archive", "count_min_quiet_s": 2},
            "destinations": [{"name": "archive", "kind": kind, **address}],
        },
        source="test",
    )
    engine = db_engine.create_engine(loaded.database_url)
    database.upgrade(engine)
    engine.dispose()
    return loaded
