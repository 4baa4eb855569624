"""Retention removes what has ended, rows and files, and nothing that somebody still needs."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent import retention
from db.base import Base
from db.models import Study

KEEP = dt.timedelta(days=30)
OLD = rows.NOW - dt.timedelta(days=31)
NEW = rows.NOW - dt.timedelta(days=29)


@dataclass(frozen=True)
class House:
    """A database with its files."""

    sessions: sessionmaker[Session]
    spool: Path
    results: Path

    def study(self, name: str, *, delivery: str = "delivered", **values: Any) -> int:
        """A study with an image, a result and everything that hangs on it."""
        ended = values.pop("ended", OLD)
        times = {"first_instance_at": ended, "last_instance_at": ended, "done_at": ended}
        with self.sessions.begin() as session:
            study = rows.study(session, **{**times, **values})
            series = rows.series(session, study)
            path = f"{name}/series/1.dcm"
            rows.instance(session, series, path=path)
            analysis = rows.analysis(session, study)
            result = rows.result(session, analysis)
            rows.delivery(session, result, state=delivery)
            rows.event(session, study)
            rows.feedback(session, study)
            file = self.results / analysis.id / "sr.dcm"
        for one in (self.spool / path, file):
            one.parent.mkdir(parents=True)
            one.write_bytes(b"x")
        return study.id

    def sweep(self) -> int:
        """Run it now."""
        return retention.sweep(self.sessions, self.spool, self.results, KEEP, rows.NOW)

    def left(self) -> set[int]:
        """Studies that are still there."""
        with self.sessions() as session:
            return set(session.execute(sa.select(Study.id)).scalars())

    def files(self) -> int:
        """Files and directories below spool and results."""
        return sum(1 for root in (self.spool, self.results) for _ in root.rglob("*"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Empty."""
    spool, results = tmp_path / "spool", tmp_path / "results"
    spool.mkdir()
    results.mkdir()
    return House(rows.sessions(tmp_path), spool, results)


def test_ended_study_leaves_no_row_and_no_file(house: House) -> None:
    """Every table and both directories are free of it; the roots stay."""
    house.study("old")

    assert house.sweep() == 1
    assert house.files() == 0
    assert house.spool.is_dir()
    with house.sessions() as session:
        counts = {
            table.name: session.execute(sa.select(sa.func.count()).select_from(table)).scalar()
            for table in Base.metadata.sorted_tables
        }
    assert set(counts.values()) == {0}


@pytest.mark.parametrize(
    "values",
    [
        {"ended": NEW},
        {"last_instance_at": NEW},
        {"state": "failed"},
        {"state": "delivering"},
        {"state": "receiving"},
        {"delivery": "dead"},
        {"delivery": "pending"},
    ],
)
def test_what_is_needed_stays(house: House, values: dict[str, Any]) -> None:
    """Recent, at work, failed, or with a delivery that a person has to look at."""
    kept = house.study("kept", **values)

    assert house.sweep() == 0
    assert house.left() == {kept}
    assert house.files() == 5


def test_skipped_study_without_an_end_is_removed_too(house: House) -> None:
    """A study that is there only because our own results came back does not stay for ever."""
    house.study("own", state="skipped", done_at=None)

    assert house.sweep() == 1
    assert house.left() == set()


def test_neighbours_are_untouched(house: House) -> None:
    """Only what belongs to the removed study goes."""
    house.study("old")
    kept = house.study("new", ended=NEW)

    house.sweep()

    assert house.left() == {kept}
    assert (house.spool / "new/series/1.dcm").is_file()


def test_sweep_is_repeatable_after_files_are_gone(house: House) -> None:
    """Files that somebody removed by hand stop nothing."""
    house.study("old")
    (house.spool / "old/series/1.dcm").unlink()

    assert house.sweep() == 1
    assert house.sweep() == 0
