"""The studies of the spool as a table for training: pseudonyms instead of patients."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from db.engine import reading
from db.models import Instance, Study
from db.models.study import Series
from inference.study import IMAGE_MODALITIES
from training.data.table import StudyRow

KEY_FILE = "pseudonym.key"


def export(sessions: sessionmaker[Session], data_dir: Path) -> list[StudyRow]:
    """One row for each study that holds images; labels are left to be filled in.

    The patient is a keyed digest of identifier and issuer; the key stays in `data_dir`.
    """
    key = _key(data_dir / KEY_FILE)
    with reading(sessions) as session:
        found = session.execute(
            sa.select(Study, Series.modality, sa.func.min(Instance.path))
            .join(Series, Series.study_id == Study.id)
            .join(Instance, Instance.series_id == Series.id)
            .where(Series.modality.in_(IMAGE_MODALITIES), Series.own_result.is_(False))
            .group_by(Study.id, Series.modality)
            .order_by(Study.id, sa.func.count().desc())
        ).all()
    rows: dict[str, StudyRow] = {}
    for study, modality, path in found:
        rows.setdefault(study.study_uid, _row(study, modality, data_dir / "spool" / path, key))
    return list(rows.values())


def _row(study: Study, modality: str, instance: Path, key: bytes) -> StudyRow:
    identity = f"{study.issuer_of_patient_id}\\{study.patient_id}".encode()
    return StudyRow(
        study=study.study_uid,
        path=instance.resolve().parents[1],  # study/series/instance.dcm
        patient=hmac.new(key, identity, hashlib.sha256).hexdigest()[:24],
        modality=modality,
        date=_date(study.study_date),
        sex=study.patient_sex,
        age=_age(study.patient_birth_date, study.study_date),
        scanner=study.station_name,
        site=study.institution,
    )


def _key(path: Path) -> bytes:
    """The site's own key, made once; readable by the agent's user only."""
    if not path.is_file():
        temporary = path.with_suffix(".tmp")
        temporary.touch(mode=0o600)
        temporary.write_bytes(secrets.token_bytes(32))
        temporary.replace(path)
    return path.read_bytes()


def _date(text: str) -> dt.date | None:
    try:
        return dt.datetime.strptime(text, "%Y%m%d").replace(tzinfo=dt.UTC).date()
    except ValueError:
        return None


def _age(born: str, examined: str) -> float | None:
    birth, day = _date(born), _date(examined)
    return round((day - birth).days / 365.25, 1) if birth and day else None
