"""A full worklist: studies of every level, analysed and not, with maps of what was found."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import numpy as np
import sqlalchemy as sa
from factories import rows

from agent.worklist_entries import names_of, summary_of
from db.models import Analysis, Delivery, Series, Study
from db.states import DeliveryState, ReadingState, StudyState
from inference.findings import Acuity, Finding

#: Level -> share of the list; the rest has no level yet and stands where it was ordered.
SHARES = {"STAT": 0.04, "HIGH": 0.08, "MEDIUM": 0.28, "LOW": 0.5}
ORDERED = ("", "ROUTINE", "STAT", "HIGH")
HOURS = 48.0
CHUNK = 2000


def fill(engine: sa.Engine, number: int, now: dt.datetime) -> None:
    """Write `number` open studies, 90 % of them analysed, each with a series and a delivery."""
    chance = random.Random(20261123)  # a repeatable list
    said = {level: _findings(level) for level in SHARES}
    with engine.begin() as connection:
        for start in range(0, number, CHUNK):
            ids = range(start + 1, min(number, start + CHUNK) + 1)
            levels = {i: _level(chance) for i in ids}
            studies = [_study(i, levels[i], said, now, chance) for i in ids]
            analysed = [study for study in studies if study["priority"]]
            connection.execute(sa.insert(Study), studies)
            connection.execute(sa.insert(Series), [_series(i) for i in ids])
            connection.execute(sa.insert(Analysis), [_analysis(s, said) for s in analysed])
            connection.execute(sa.insert(Delivery), [_delivery(s, now) for s in analysed])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
        if engine.dialect.name == "postgresql":  # as autovacuum would have by the next day
            connection.execute(sa.text("VACUUM"))


def _level(chance: random.Random) -> str:
    drawn = chance.random()
    for level, share in SHARES.items():
        if drawn < share:
            return level
        drawn -= share
    return ""


def _findings(level: str) -> tuple[str, str, str]:
    """Findings JSON, its summary and names; urgent ones have a map of 16 x 16 x 16 tokens."""
    made: list[Finding] = [rows.finding("atrophy", 0.1, acuity=Acuity.ROUTINE)]
    if level in ("STAT", "HIGH"):
        saliency = np.random.default_rng(1).random((16, 16, 16), dtype=np.float32)
        grounding = rows.grounding("2.25.7", saliency=saliency)
        made.append(rows.finding(rows.HEMORRHAGE, 0.97, grounding=grounding))
        made.append(rows.finding("midline_shift", 0.71))
    elif level == "MEDIUM":
        made.append(rows.finding("mass_with_edema", 0.83, acuity=Acuity.ROUTINE))
    text = rows.findings(*made).to_json()
    return text, summary_of(text), names_of([text])


def _study(
    i: int,
    level: str,
    said: dict[str, tuple[str, str, str]],
    now: dt.datetime,
    chance: random.Random,
) -> dict[str, Any]:
    at = now - dt.timedelta(hours=chance.random() * HOURS)
    return {
        "id": i,
        "study_uid": f"2.25.{10**9 + i}",
        "key": f"{i:032x}",
        "patient_id": f"P{i // 3:07d}",
        "issuer_of_patient_id": "HOSP",
        "patient_name": f"Example^Patient {i}",
        "patient_birth_date": "19600101",
        "accession_number": f"A{i:07d}",
        "study_date": at.strftime("%Y%m%d"),
        "study_time": at.strftime("%H%M%S"),
        "description": "CT HEAD WITHOUT CONTRAST",
        "modalities": "CT" if i % 4 else "MR",
        "ordered_priority": ORDERED[i % len(ORDERED)],
        "state": StudyState.DONE if level else StudyState.QUEUED,
        "revision": 1,
        "pack": "demo-head",
        "first_instance_at": at,
        "last_instance_at": at,
        "instance_count": 32,
        "priority": level,
        "priority_rank": rows.RANKS.get(level, 100),
        "priority_score": 0.97 if level == "STAT" else 0.1,
        "priority_reason": "Intraparenchymal hemorrhage 97% (urgent)" if level == "STAT" else "",
        "reading_state": ReadingState.READING if i % 50 == 0 else ReadingState.UNREAD,
        "found": said[level][2] if level else "",
    }


def _series(i: int) -> dict[str, Any]:
    return {"study_id": i, "series_uid": f"2.25.{10**10 + i}", "modality": "CT", "number": 4}


def _analysis(study: dict[str, Any], said: dict[str, tuple[str, str, str]]) -> dict[str, Any]:
    findings, summary, _ = said[study["priority"]]
    return {
        "id": f"{study['id']:032x}",
        "study_id": study["id"],
        "revision": 1,
        "pack": "demo-head",
        "pack_version": "1.0.0",
        "pack_digest": "d" * 64,
        "code_version": "0",
        "status": "succeeded",
        "findings": findings,
        "summary": summary,
        "priority": study["priority"],
        "priority_score": study["priority_score"],
        "priority_reason": study["priority_reason"],
        "seconds": 1.0,
        "created_at": study["last_instance_at"],
    }


def _delivery(study: dict[str, Any], now: dt.datetime) -> dict[str, Any]:
    return {
        "study_id": study["id"],
        "analysis_id": f"{study['id']:032x}",
        "destination": "pacs",
        "kind": "sr",
        "subject": f"2.25.{10**11 + study['id']}",
        "state": DeliveryState.DELIVERED,
        "next_attempt_at": now,
        "created_at": now,
        "delivered_at": now,
    }
