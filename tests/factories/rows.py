"""Database rows with good defaults: studies, series, analyses, results, deliveries, events.

Every builder adds its row to the session, flushes it (so that ids exist) and returns it. State in a
test only what the test is about.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session, sessionmaker

from db import engine
from db.base import Base
from db.models import (
    Analysis,
    Delivery,
    Event,
    Instance,
    ReadingFeedback,
    Result,
    Series,
    Study,
)
from db.states import DeliveryState, StudyState
from inference.findings import (
    Acuity,
    Code,
    Finding,
    Findings,
    Grounding,
    PackRef,
    SeriesReport,
    Status,
)

NOW = dt.datetime(2026, 11, 23, 8, 30, tzinfo=dt.UTC)
RANKS = {"STAT": 0, "HIGH": 1, "MEDIUM": 2, "LOW": 3}
PACK = PackRef(
    name="demo-head",
    version="1.0.0",
    digest="d" * 64,
    licence="MIT",
    notice="Demonstration model, not for clinical use.",
)
HEMORRHAGE = "intraparenchymal_hemorrhage"

_counter = itertools.count(1)


def minutes_ago(minutes: float, now: dt.datetime = NOW) -> dt.datetime:
    """The moment `minutes` before `now`."""
    return now - dt.timedelta(minutes=minutes)


def sessions(folder: Path) -> sessionmaker[Session]:
    """A fresh SQLite database file below `folder`, all tables created."""
    bind = engine.create_engine(f"sqlite:///{folder / 'test.db'}")
    Base.metadata.create_all(bind)
    return engine.session_factory(bind)


def study(session: Session, **values: Any) -> Study:
    """A finished head CT of a patient of its own; give `number` for predictable names."""
    n = values.pop("number", None) or next(_counter)
    priority = values.get("priority", "")
    row = Study(
        **{
            "study_uid": f"2.25.{1000 + n}",
            "key": hashlib.sha256(f"study {n}".encode()).hexdigest()[:32],
            "patient_id": f"PAT{n:04d}",
            "issuer_of_patient_id": "HOSP",
            "patient_name": f"Example^Patient{n}",
            "patient_birth_date": "19600101",
            "patient_sex": "F" if n % 2 else "M",
            "accession_number": f"ACC{n:04d}",
            "study_date": "20261123",
            "study_time": "080000",
            "description": "CT HEAD WITHOUT CONTRAST",
            "modalities": "CT",
            "body_part": "HEAD",
            "station_name": "CT1",
            "patient_location": "ED",
            "calling_ae": "SCANNER",
            "state": StudyState.DONE,
            "revision": 1,
            "pack": "demo-head",
            "rule": "head",
            "first_instance_at": minutes_ago(12),
            "last_instance_at": minutes_ago(11),
            "instance_count": 24,
            "assembled_count": 24,
            "assembled_at": minutes_ago(10),
            "priority_rank": RANKS.get(priority, 100),
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def series(session: Session, study: Study, **values: Any) -> Series:
    """An axial series of the study."""
    n = next(_counter)
    row = Series(
        **{
            "study_id": study.id,
            "series_uid": f"{study.study_uid}.{n}",
            "modality": "CT",
            "description": "AXIAL HEAD",
            "number": n,
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def instance(session: Session, series: Series, **values: Any) -> Instance:
    """A single-frame CT image of the series."""
    n = next(_counter)
    row = Instance(
        **{
            "series_id": series.id,
            "study_id": series.study_id,
            "sop_uid": f"{series.series_uid}.{n}",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "number": n,
            "path": f"study/series/{n}.dcm",
            "size_bytes": 132_000,
            "sha256": "0" * 64,
            "calling_ae": "SCANNER",
            "received_at": minutes_ago(12),
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def grounding(series_uid: str = "2.25.7", **values: Any) -> Grounding:
    """A blob in the middle of a 4 x 8 x 8 token grid."""
    saliency = np.zeros((4, 8, 8), dtype=np.float32)
    saliency[2, 3:5, 4:6] = [[0.7, 1.0], [0.8, 0.6]]
    affine = np.diag([16.0, 16.0, 16.0, 1.0])
    return Grounding(
        **{
            "series_uid": series_uid,
            "saliency": saliency,
            "grid_to_patient": affine,
            "threshold": 0.5,
            "key_sop_uid": f"{series_uid}.1",
            **values,
        }
    )


def finding(
    label: str = HEMORRHAGE,
    probability: float = 0.94,
    *,
    display: str = "",
    acuity: Acuity = Acuity.URGENT,
    threshold: float = 0.5,
    grounding: Grounding | None = None,
) -> Finding:
    """One label of the demonstration pack; the display text derives from the label."""
    display = display or label.replace("_", " ").capitalize()
    return Finding(
        label=label,
        display=display,
        code=Code(label[:16].upper(), "99WLA", display),
        acuity=acuity,
        probability=probability,
        threshold=threshold,
        site=Code("12738006", "SCT", "Brain"),
        grounding=grounding,
    )


def findings(
    *found: Finding, study_uid: str = "2.25.1001", status: Status = Status.SUCCEEDED, **values: Any
) -> Findings:
    """What the demonstration pack answered for one series; default: one bleed."""
    return Findings(
        **{
            "study_uid": study_uid,
            "status": status,
            "pack": PACK,
            "findings": found or (finding(),),
            "series": (SeriesReport(f"{study_uid}.1", "CT", "AXIAL HEAD", used=True, slices=24),),
            "timings_s": {"encoder": 1.2, "heads": 0.1},
            "device": "cpu",
            **values,
        }
    )


def analysis(
    session: Session, study: Study, said: Findings | None = None, **values: Any
) -> Analysis:
    """The analysis of the study's current revision; sets what was found, no priority."""
    said = said or findings(study_uid=study.study_uid)
    study.found = "\n".join(f"{f.display}\n{f.label}".casefold() for f in said.positives)
    ident = hashlib.sha256(f"analysis {study.id} {study.revision}".encode()).hexdigest()[:32]
    row = Analysis(
        **{
            "id": ident,
            "study_id": study.id,
            "revision": study.revision,
            "pack": said.pack.name,
            "pack_version": said.pack.version,
            "pack_digest": said.pack.digest,
            "code_version": "0.1.0",
            "status": said.status,
            "findings": said.to_json(),
            "priority": study.priority or "STAT",
            "priority_score": 0.94,
            "priority_reason": study.priority_reason or "urgent finding above threshold",
            "seconds": 1.3,
            "created_at": minutes_ago(9),
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def result(session: Session, analysis: Analysis, **values: Any) -> Result:
    """A composed SR of the analysis."""
    n = next(_counter)
    row = Result(
        **{
            "analysis_id": analysis.id,
            "study_id": analysis.study_id,
            "kind": "sr",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34",
            "sop_uid": f"2.25.900{n}",
            "series_uid": f"2.25.800{n}",
            "path": f"{analysis.id}/sr.dcm",
            "size_bytes": 20_000,
            "created_at": minutes_ago(8),
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def delivery(session: Session, result: Result, **values: Any) -> Delivery:
    """The delivery of a result to the PACS, arrived."""
    row = Delivery(
        **{
            "study_id": result.study_id,
            "analysis_id": result.analysis_id,
            "destination": "pacs",
            "kind": result.kind,
            "subject": result.sop_uid,
            "result_id": result.id,
            "state": DeliveryState.DELIVERED,
            "attempts": 1,
            "next_attempt_at": minutes_ago(8),
            "created_at": minutes_ago(8),
            "delivered_at": minutes_ago(7)
            if values.get("state", DeliveryState.DELIVERED) == DeliveryState.DELIVERED
            else None,
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def event(session: Session, study: Study, **values: Any) -> Event:
    """One line of the study's timeline."""
    row = Event(
        **{
            "study_id": study.id,
            "at": minutes_ago(10),
            "who": "assembly",
            "kind": "state_changed",
            "from_state": StudyState.RECEIVING,
            "to_state": StudyState.ASSEMBLED,
            "why": "quiet for 30 s",
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def feedback(session: Session, study: Study, **values: Any) -> ReadingFeedback:
    """A radiologist agreed with the result."""
    row = ReadingFeedback(
        **{"study_id": study.id, "at": NOW, "who": "radiologist", "kind": "agreed", **values}
    )
    session.add(row)
    session.flush()
    return row
