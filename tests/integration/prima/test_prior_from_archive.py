"""An earlier study that only a real archive holds is fetched, read by the model and compared."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import dicom, orthanc, prima, rows
from factories.orthanc import Orthanc

from agent import config, database, foundation, priors, staff
from agent.analysis.process import InlineEngine
from agent.clock import utc_now
from db import engine as db_engine
from db.models import Event
from db.queries import claims
from db.states import StudyState
from inference.prima.importing import Identity, Sources, import_official
from inference.study import SeriesInput, StudyInput

pytestmark = pytest.mark.peers

OWNER = "node/results"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pack of the published layout."""
    folder = tmp_path_factory.mktemp("pack")
    file = prima.save(prima.full_model(prima.hiervit()), folder / "model.pt")
    identity = Identity("prima", "1.0.0", created=dt.date(2026, 11, 23))
    import_official(Sources(file, *prima.tokenizer_files(folder)), folder / "pack", identity)
    return folder / "pack"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Orthanc with an MR study of two series, a CT of the patient, and another's MR."""
    folder = tmp_path_factory.mktemp("orthanc")
    day = {"StudyDate": "20260301", "IssuerOfPatientID": "HOSP"}
    datasets = [ds for key in "12" for ds in dicom.mr_series(8, 64, 64, key=key, **day)]
    datasets += dicom.ct_series(1, 16, 16, StudyDate="20260302", IssuerOfPatientID="HOSP")
    datasets += dicom.mr_series(1, 16, 16, patient="2", StudyDate="20260303")
    with orthanc.running(folder) as running:
        for ds in datasets:
            running.upload(dicom.save(ds, folder / f"{ds.SOPInstanceUID}.dcm"))
        yield running


@pytest.mark.parametrize("kind", ["dicom", "dicomweb"])
def test_the_change_since_a_study_of_the_archive_is_known(
    archive: Orthanc, pack: Path, tmp_path: Path, kind: str
) -> None:
    """The same images as today's were archived: no score changed, which only their reading tells.

    Over C-FIND and C-GET, and over QIDO-RS and WADO-RS; no study is added to the record.
    """
    base = foundation.lay(_config(tmp_path, archive, kind, pack), utc_now, None)
    engine = InlineEngine({"prima": pack}, "cpu")
    given = tuple(
        SeriesInput(key, "MR", "T1 AXIAL", dicom.save_all(series, tmp_path / key))
        for key in "12"
        for series in [dicom.mr_series(8, 64, 64, key=key)]
    )
    said = engine.analyse(StudyInput("2.25.5", "MR", given), "prima")
    with base.sessions.begin() as session:
        study = rows.study(
            session,
            state=StudyState.COMPOSING,
            patient_id="PAT1",
            study_date="20260501",
            next_attempt_at=None,
        )
        row = rows.analysis(session, study, said, pack="prima")
        lease = dt.timedelta(minutes=5)
        composing = [StudyState.COMPOSING]
        claim = claims.claim(session, composing, owner=OWNER, lease=lease, now=utc_now())
        study_id, row_id = study.id, row.id
    assert claim is not None

    staff._prior(base, engine)(claim, OWNER)

    with base.sessions() as session:
        events = [(e.kind, e.why) for e in session.query(Event).filter_by(who="priors")]
        study, row = session.get_one(type(study), study_id), session.get_one(type(row), row_id)
        found = priors.compare(session, study, row)
        count = session.query(type(study)).count()
    assert [kind for kind, _ in events] == ["prior_read"], events
    assert found is not None
    assert (found.date, found.from_archive) == ("20260301", True)
    assert len(found.changes) == len(said.findings)
    assert all(abs(change.difference) < 1e-3 for change in found.changes.values())
    assert count == 1
    assert list((tmp_path / "data" / "priors").iterdir()) == []


def _config(folder: Path, peer: Orthanc, kind: str, pack: Path) -> config.Config:
    """The agent's configuration, its database made."""
    at = {
        "dicom": {"ae_title": peer.ae_title, "port": peer.dicom_port},
        "dicomweb": {"url": peer.web_url},
    }[kind]
    data = {
        "storage": {"data_dir": str(folder / "data"), "low_water_mark_mb": 1},
        "packs": {"prima": {"path": str(pack)}},
        "destinations": [{"name": "archive", "kind": kind, **at}],
        "priors": {"from": "archive"},
    }
    made = config.from_mapping(data, source="test")
    (folder / "data").mkdir()
    bind = db_engine.create_engine(made.database_url)
    database.upgrade(bind)
    bind.dispose()
    return made
