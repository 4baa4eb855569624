"""One instance: checked, spooled, indexed, and only then acknowledged."""

from __future__ import annotations

import errno
import json
import os
import zlib
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from factories import arrivals, rows, wire
from sqlalchemy.orm import Session, sessionmaker

from agent.intake import handler as handler_module
from agent.intake.handler import IntakeHandler, IntakeSettings
from agent.intake.spool import Spool
from db.models import Event, Instance, Study
from dicom_nodes.headers import DEFLATED

Sessions = sessionmaker[Session]


@pytest.fixture
def lite(tmp_path: Path) -> Sessions:
    """A fresh SQLite database."""
    return rows.sessions(tmp_path)


@pytest.fixture
def intake(tmp_path: Path, lite: Sessions) -> IntakeHandler:
    """An intake that never runs out of disk."""
    return arrivals.handler(tmp_path, lite)


def paths(sessions: Sessions) -> list[str]:
    """Recorded paths."""
    with sessions() as session:
        return list(session.scalars(sa.select(Instance.path).order_by(Instance.id)))


def files(intake: IntakeHandler, folder: str = "*/*") -> list[str]:
    """Names of the files in a part of the spool."""
    return sorted(path.name for path in intake.incoming.parent.glob(f"{folder}/*"))


def test_an_instance_is_stored_and_recorded(intake: IntakeHandler, lite: Sessions):
    """Success means: file under its final name, row in the record, temporary file gone."""
    (ds,) = arrivals.ct()
    status = intake.store(arrivals.arrive(intake.incoming, ds))

    (path,) = paths(lite)
    assert status == 0x0000
    assert path == f"{ds.StudyInstanceUID}/{ds.SeriesInstanceUID}/{ds.SOPInstanceUID}.dcm"
    assert pydicom.dcmread(intake.incoming.parent / path).PatientID == "PAT1"
    assert files(intake, "incoming") == []
    with lite() as session:
        study = session.scalars(sa.select(Study)).one()
    assert (study.patient_id, study.accession_number) == ("PAT1", "ACC1")
    assert (study.modalities, study.station_name, study.body_part) == ("CT", "SCANNER1", "HEAD")


def test_a_repeated_instance_is_success_and_no_op(intake: IntakeHandler, lite: Sessions):
    """Same bytes from another association: acknowledged, nothing new."""
    (ds,) = arrivals.ct()
    statuses = [intake.store(arrivals.arrive(intake.incoming, ds)) for _ in range(3)]

    assert statuses == [0, 0, 0]
    assert len(paths(lite)) == 1
    assert files(intake) == [f"{ds.SOPInstanceUID}.dcm"]


def test_other_bytes_under_a_known_uid_are_kept_beside(intake: IntakeHandler, lite: Sessions):
    """Both versions stay; the timeline tells."""
    (ds,) = arrivals.ct()
    intake.store(arrivals.arrive(intake.incoming, ds))
    ds.PatientComments = "corrected"
    status = intake.store(arrivals.arrive(intake.incoming, ds))

    assert status == 0
    assert files(intake) == [f"{ds.SOPInstanceUID}.dcm", f"{ds.SOPInstanceUID}.v1.dcm"]
    with lite() as session:
        assert session.scalars(sa.select(Instance.version)).all() == [0, 1]
        assert "instance_version" in session.scalars(sa.select(Event.kind)).all()
        assert session.scalars(sa.select(Study.instance_count)).one() == 1


REFUSED = {
    "no study UID": ({"StudyInstanceUID": None}, {}, 0xC002),
    "no series UID": ({"SeriesInstanceUID": None}, {}, 0xC002),
    "no instance UID": ({"SOPInstanceUID": None}, {"sop_instance_uid": "1.2.3"}, 0xC002),
    "no class UID": ({"SOPClassUID": None}, {"sop_class_uid": wire.CT}, 0xC002),
    "a study UID without end": ({"StudyInstanceUID": "1." * 70 + "1"}, {}, 0xC003),
    "another instance": ({}, {"sop_instance_uid": "1.2.3"}, 0xA900),
    "another class": ({}, {"sop_class_uid": wire.MR}, 0xA900),
}


@pytest.mark.parametrize(("tags", "command", "expected"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
def test_an_instance_that_cannot_be_filed_goes_to_quarantine(
    intake: IntakeHandler,
    lite: Sessions,
    tags: dict[str, str | None],
    command: dict[str, str],
    expected: int,
):
    """The sender gets the status, we keep file and reason, the record stays empty."""
    (ds,) = arrivals.ct()
    wanted = {
        "sop_class_uid": str(ds.SOPClassUID),
        "sop_instance_uid": str(ds.SOPInstanceUID),
        **command,
    }
    for keyword, value in tags.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    data = wire.encode(ds)
    ds.SOPClassUID, ds.SOPInstanceUID = wire.CT, "1.2.3"
    status = intake.store(arrivals.arrive(intake.incoming, ds, data, **wanted))

    kept = files(intake, "quarantine")
    assert status == expected
    assert paths(lite) == []
    assert [name.rpartition(".")[2] for name in kept] == ["dcm", "json"]
    reason = json.loads((intake.incoming.parent / "quarantine" / kept[1]).read_text())
    assert reason["status"] == f"0x{expected:04X}"
    assert "PAT1" not in json.dumps(reason)
    assert files(intake, "incoming") == []


UNPARSABLE = {
    "noise": (os.urandom(5000), wire.EXPLICIT),
    "a damaged deflated dataset": (b"\xff" * 500, DEFLATED),
    "nothing": (b"", wire.EXPLICIT),
}


@pytest.mark.parametrize(("data", "syntax"), UNPARSABLE.values(), ids=UNPARSABLE.keys())
@pytest.mark.filterwarnings("ignore")
def test_bytes_that_are_no_dataset_go_to_quarantine(
    intake: IntakeHandler, lite: Sessions, data: bytes, syntax: str
):
    """A failure of the 0xC000 class, a copy kept, no row."""
    (ds,) = arrivals.ct()
    status = intake.store(arrivals.arrive(intake.incoming, ds, data, transfer_syntax_uid=syntax))

    assert status & 0xF000 == 0xC000
    assert paths(lite) == []
    assert len(files(intake, "quarantine")) == 2


def test_a_bomb_is_not_inflated(intake: IntakeHandler, lite: Sessions):
    """A deflated dataset of a gigabyte of zeros is kept as it came, not unpacked."""
    (ds,) = arrivals.ct()
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = deflater.compress(wire.encode(ds)) + deflater.compress(b"\0" * 50_000_000)
    data += deflater.flush()
    status = intake.store(arrivals.arrive(intake.incoming, ds, data, transfer_syntax_uid=DEFLATED))

    assert status == 0
    assert len(paths(lite)) == 1


def test_a_header_beyond_the_head_is_read_from_the_file(intake: IntakeHandler, lite: Sessions):
    """Large elements before the UIDs make the scan unsure; pydicom finds them."""
    (ds,) = arrivals.ct()
    ds.add_new(0x00091001, "UN", b"\0" * 100_000)
    status = intake.store(arrivals.arrive(intake.incoming, ds))

    assert status == 0
    assert len(paths(lite)) == 1


def test_own_results_are_marked(tmp_path: Path, lite: Sessions):
    """What the PACS sends back of our own is stored and indexed, but counts for nothing."""
    (ds,) = arrivals.ct()
    intake = arrivals.handler(
        tmp_path, lite, is_own=lambda header: header.series_uid == ds.SeriesInstanceUID
    )
    status = intake.store(arrivals.arrive(intake.incoming, ds))

    with lite() as session:
        study = session.scalars(sa.select(Study)).one()
    assert status == 0
    assert (study.instance_count, study.state) == (0, "skipped")


def test_low_disk_refuses_before_the_dataset(tmp_path: Path, lite: Sessions):
    """Below the low-water mark the answer is out of resources, for every instance."""
    low = IntakeSettings(low_water_bytes=2**62)
    intake = arrivals.handler(tmp_path, lite, settings=low)
    (ds,) = arrivals.ct()

    assert intake.admit(arrivals.request(ds)) == 0xA700


def test_space_is_asked_for_once_a_second(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Not for every instance; and recovery is noticed."""
    spool, answers = Spool(tmp_path), [5, 50]
    monkeypatch.setattr(spool, "free_bytes", lambda: answers.pop(0))
    space = handler_module._FreeSpace(spool, 10)

    assert [space.is_low(t) for t in (0.0, 0.5, 0.99, 1.0, 1.5)] == [True] * 3 + [False] * 2
    assert answers == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fills_up_is_out_of_resources(
    intake: IntakeHandler, lite: Sessions, monkeypatch: pytest.MonkeyPatch, number: int
):
    """Nothing is recorded or left behind; the sender may try again, and then succeeds."""

    def full(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    (ds,) = arrivals.ct()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        status = intake.store(arrivals.arrive(intake.incoming, ds))
    left = files(intake, "incoming")
    again = intake.store(arrivals.arrive(intake.incoming, ds))

    assert (status, again) == (0xA700, 0)
    assert left == []
    assert len(paths(lite)) == 1


def test_a_database_that_is_away_is_out_of_resources(intake: IntakeHandler, lite: Sessions):
    """The file may lie there already: the repetition indexes it."""
    (ds,) = arrivals.ct()
    with lite.begin() as session:
        session.execute(sa.text("ALTER TABLE instance RENAME TO away"))
    status = intake.store(arrivals.arrive(intake.incoming, ds))
    with lite.begin() as session:
        session.execute(sa.text("ALTER TABLE away RENAME TO instance"))
    again = intake.store(arrivals.arrive(intake.incoming, ds))

    assert (status, again) == (0xA700, 0)
    assert len(paths(lite)) == 1
    assert files(intake, "incoming") == []


def test_the_observer_hears_every_outcome(tmp_path: Path, lite: Sessions):
    """Metrics get status and size of accepted and refused instances."""
    heard: list[tuple[int, int]] = []
    intake = arrivals.handler(tmp_path, lite, observe=lambda *a: heard.append(a))
    (ds,) = arrivals.ct()
    good = arrivals.arrive(intake.incoming, ds)
    intake.store(good)
    intake.store(arrivals.arrive(intake.incoming, ds, sop_instance_uid="1.2.3"))

    assert [status for status, _ in heard] == [0, 0xA900]
    assert heard[0][1] == good.size_bytes


def test_open_associations_are_known_by_ae_title(intake: IntakeHandler):
    """A hint for completeness: more may come while the scanner's association is open."""
    intake.association_opened(arrivals.PEER)
    intake.association_opened(arrivals.PEER)
    intake.association_closed(arrivals.PEER, aborted=False)
    during = intake.open_associations("SCANNER")
    intake.association_closed(arrivals.PEER, aborted=True)

    assert (during, intake.open_associations("SCANNER")) == (1, 0)
