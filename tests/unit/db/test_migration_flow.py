"""Migration 0002: a record that is full keeps every row and takes a second analysis."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from factories import rows
from sqlalchemy.exc import IntegrityError

from agent import database
from db import engine
from db.models import Analysis, Draft, Study


@pytest.fixture
def old(tmp_path: Path) -> sa.Engine:
    """A database of the version before, with one analysed and delivered study."""
    bind = engine.create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    config = database.alembic_config()
    with bind.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    at = "2026-11-20 08:00:00"
    with bind.begin() as connection:
        for table, values in _legacy(at).items():
            names = ", ".join(f'"{name}"' for name in values)
            marks = ", ".join(f":{name}" for name in values)
            connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)
    return bind


def test_legacy_rows_keep_working(old: sa.Engine) -> None:
    """Rebuilding a table that others refer to loses nothing; a second pack finds its place."""
    database.upgrade(old)

    with engine.session_factory(old).begin() as session:
        (analysis,) = session.execute(sa.select(Analysis)).scalars()
        assert (analysis.id, analysis.votes, analysis.provisional) == ("a" * 32, "[]", False)
        (study,) = session.execute(sa.select(Study)).scalars()
        assert study.packs == ("demo-head",)
        rows.analysis(session, study, id="b" * 32, pack="prima", priority="LOW")
        session.add(Draft(study_id=1, revision=1, next_attempt_at=rows.NOW, created_at=rows.NOW))
    with old.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert connection.exec_driver_sql("SELECT count(*) FROM result").scalar() == 1


def test_one_pack_still_analyses_a_revision_once(old: sa.Engine) -> None:
    """The new constraint is as strict as the old one within a pack."""
    database.upgrade(old)

    with engine.session_factory(old)() as session:
        study = session.execute(sa.select(Study)).scalar_one()
        with pytest.raises(IntegrityError):
            rows.analysis(session, study, id="c" * 32, priority="LOW")


def test_foreign_keys_are_enforced_again_after_an_upgrade(old: sa.Engine) -> None:
    """The switch is off for the migration only."""
    database.upgrade(old)

    with old.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def _legacy(at: str) -> dict[str, dict[str, object]]:
    """Rows as version 0001 wrote them."""
    texts = [
        "patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex",
        "accession_number", "study_date", "study_time", "description", "modalities", "body_part",
        "station_name", "institution", "patient_location", "calling_ae", "ordered_priority",
        "reason", "rule", "priority_reason",
    ]  # fmt: skip
    counts = [
        "attempts", "instance_count", "assembled_count", "assembled_images", "priority_rank",
    ]  # fmt: skip
    study = {
        **dict.fromkeys(texts, ""),
        **dict.fromkeys(counts, 0),
        "id": 1, "study_uid": "2.25.1", "key": "k", "state": "done", "revision": 1,
        "pack": "demo-head", "first_instance_at": at, "last_instance_at": at,
        "priority": "STAT", "priority_score": 0.9, "reading_state": "unread",
    }  # fmt: skip
    analysis = {
        "id": "a" * 32, "study_id": 1, "revision": 1, "pack": "demo-head", "pack_version": "1",
        "pack_digest": "d", "code_version": "0.1", "status": "succeeded", "findings": "{}",
        "priority": "STAT", "priority_score": 0.9, "priority_reason": "bleed", "shadow": False,
        "seconds": 1.0, "created_at": at,
    }  # fmt: skip
    result = {
        "id": 1, "analysis_id": "a" * 32, "study_id": 1, "kind": "sr", "label": "",
        "sop_class_uid": "1", "sop_uid": "2.25.2", "series_uid": "2.25.3", "path": "p",
        "size_bytes": 1, "created_at": at,
    }  # fmt: skip
    return {"study": study, "analysis": analysis, "result": result}
