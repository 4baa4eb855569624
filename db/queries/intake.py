"""Recording received instances: one transaction per batch, on SQLite and PostgreSQL."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from db.models.event import Event
from db.models.study import Instance, Series, Study
from db.queries.received import Outcome, Received, StudyValues
from db.states import ReadingState, StudyState

WHO = "intake"
ONLY_OWN_RESULTS = "only results of this agent were received"

_study = cast("sa.Table", Study.__table__)
_series = cast("sa.Table", Series.__table__)
_instance = cast("sa.Table", Instance.__table__)
_event = cast("sa.Table", Event.__table__)


#: Taken from the latest instance, whatever it says; the rest only where it says something: a
#: dose report without a description must not blank out the scanner's.
_IDENTITY = frozenset(
    {
        "patient_id",
        "issuer_of_patient_id",
        "patient_name",
        "patient_birth_date",
        "patient_sex",
        "accession_number",
    }
)


class Touched(NamedTuple):
    """What `UPDATE_STUDY` returns of a study that was added to."""

    id: int
    state: str
    revision: int
    instance_count: int
    assembled_count: int


def record(connection: sa.Connection, batch: Sequence[Received]) -> list[Outcome]:
    """Write a batch inside the caller's transaction; outcomes are in the batch's order.

    Safe to repeat: a file that is recorded already changes nothing.
    """
    series_ids = _ensure_series(connection, batch)
    outcomes, rows = _instance_rows(connection, batch, series_ids)
    if rows:
        connection.execute(_INSERT_INSTANCES, rows)
    by_study: dict[str, list[tuple[Received, Outcome]]] = defaultdict(list)
    for item, outcome in zip(batch, outcomes, strict=True):
        if outcome is not Outcome.KNOWN and not item.own_result:
            by_study[item.study_uid].append((item, outcome))
    for study_uid in sorted(by_study):  # one order for all hosts: no deadlock
        _touch_study(connection, study_uid, by_study[study_uid])
    return outcomes


def _instance_rows(
    connection: sa.Connection,
    batch: Sequence[Received],
    series_ids: Mapping[tuple[str, str], tuple[int, int]],
) -> tuple[list[Outcome], list[dict[str, Any]]]:
    known: dict[str, dict[str, int]] = defaultdict(dict)  # sop uid -> path -> version
    for sop_uid, version, path in connection.execute(
        _SELECT_VERSIONS, {"sop_uids": [item.sop_uid for item in batch]}
    ):
        known[sop_uid][path] = version
    outcomes, rows = [], []
    for item in batch:
        versions = known[item.sop_uid]
        if item.path in versions:
            outcomes.append(Outcome.KNOWN)
            continue
        version = max(versions.values(), default=-1) + 1
        versions[item.path] = version
        outcomes.append(Outcome.VERSION if version else Outcome.NEW)
        study_id, series_id = series_ids[item.study_uid, item.series_uid]
        rows.append(_instance_row(item, study_id, series_id, version))
    return outcomes, rows


def _instance_row(item: Received, study_id: int, series_id: int, version: int) -> dict[str, Any]:
    return {
        "series_id": series_id,
        "study_id": study_id,
        "sop_uid": item.sop_uid,
        "version": version,
        "sop_class_uid": item.sop_class_uid,
        "transfer_syntax_uid": item.transfer_syntax_uid,
        "number": item.number,
        "path": item.path,
        "size_bytes": item.size_bytes,
        "sha256": item.sha256,
        "calling_ae": item.calling_ae,
        "received_at": item.received_at,
    }


def _ensure_series(
    connection: sa.Connection, batch: Sequence[Received]
) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (study id, series id) by their UIDs, making rows for those seen first."""
    wanted = {(item.study_uid, item.series_uid): item for item in batch}
    found = _find_series(connection, wanted)
    missing = [item for key, item in wanted.items() if key not in found]
    if not missing:
        return found
    for item in {item.study_uid: item for item in missing}.values():
        _ensure_study(connection, item)
    for item in missing:
        _make_series(connection, item)
    return _find_series(connection, wanted)


def _find_series(
    connection: sa.Connection, wanted: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[int, int]]:
    pairs = list(wanted)
    result = connection.execute(
        _SELECT_SERIES,
        {"studies": list({s for s, _ in pairs}), "series": list({e for _, e in pairs})},
    )
    return {(study, series): (study_id, series_id) for study, series, study_id, series_id in result}


def _ensure_study(connection: sa.Connection, item: Received) -> None:
    """Make the study's row and its first Event, unless somebody else did."""
    state = StudyState.SKIPPED if item.own_result else StudyState.RECEIVING
    values = {
        **vars(item.study),
        "study_uid": item.study_uid,
        "key": uuid.uuid4().hex,
        "calling_ae": item.calling_ae,
        "state": state,
        "reason": ONLY_OWN_RESULTS if item.own_result else "",
        "first_instance_at": item.received_at,
        "last_instance_at": item.received_at,
        "reading_state": ReadingState.UNREAD,
    }
    made = connection.execute(_insert_if_absent(connection, _study, values, ["study_uid"]))
    if not made.rowcount:
        return
    study_id = connection.scalar(sa.select(_study.c.id).filter_by(study_uid=item.study_uid))
    assert study_id is not None  # noqa: S101 - inserted above, in this transaction
    _add_event(connection, study_id, item.received_at, "first_instance", to_state=state)


def _make_series(connection: sa.Connection, item: Received) -> None:
    study_id = connection.scalar(sa.select(_study.c.id).filter_by(study_uid=item.study_uid))
    values = {
        **vars(item.series),
        "study_id": study_id,
        "series_uid": item.series_uid,
        "own_result": item.own_result,
        "reason": "",
    }
    made = connection.execute(
        _insert_if_absent(connection, _series, values, ["study_id", "series_uid"])
    )
    if made.rowcount and not item.own_result:
        modalities = connection.scalars(
            sa.select(_series.c.modality)
            .distinct()
            .where(_series.c.study_id == study_id, ~_series.c.own_result, _series.c.modality != "")
            .order_by(_series.c.modality)
        )
        connection.execute(
            sa.update(_study)
            .where(_study.c.id == study_id)
            .values(modalities="\\".join(modalities))
        )


def _touch_study(
    connection: sa.Connection, study_uid: str, items: Sequence[tuple[Received, Outcome]]
) -> None:
    """Bump counts and times, take the latest identity, and tell of late instances."""
    latest = items[-1][0]
    new = sum(outcome is Outcome.NEW for _, outcome in items)
    row = Touched(*connection.execute(UPDATE_STUDY, study_parameters(latest, new)).one())
    tell_if_late(connection, row, new, latest.received_at)
    for item, outcome in items:
        if outcome is Outcome.VERSION:
            why = "an instance came again with other bytes; both are kept"
            _add_event(connection, row.id, item.received_at, "instance_version", why=why)


def study_parameters(latest: Received, new: int) -> dict[str, Any]:
    """Return the parameters of `UPDATE_STUDY` for `new` instances, the latest of which is given."""
    return {
        "b_study_uid": latest.study_uid,
        "b_new": new,
        "b_at": latest.received_at,
        "b_calling_ae": latest.calling_ae,
        **{f"b_{name}": value for name, value in vars(latest.study).items()},
    }


def tell_if_late(connection: sa.Connection, row: Touched, new: int, at: dt.datetime) -> None:
    """Write an Event for the first instances that come after the study was assembled.

    Args:
        connection: with the transaction of the change.
        row: what `UPDATE_STUDY` returned.
        new: instances it counted.
        at: when the latest was received.
    """
    if not new or row.state == StudyState.RECEIVING or not row.revision:
        return
    if row.instance_count - new <= row.assembled_count:
        why = "instances arrived after the study was assembled"
        _add_event(connection, row.id, at, "late_instances", why=why)


def _add_event(
    connection: sa.Connection,
    study_id: int,
    at: dt.datetime,
    kind: str,
    *,
    to_state: str = "",
    why: str = "",
) -> None:
    values = {
        "study_id": study_id,
        "at": at,
        "who": WHO,
        "kind": kind,
        "from_state": "",
        "to_state": to_state,
        "why": why,
    }
    connection.execute(_INSERT_EVENT, values)


def _insert_if_absent(
    connection: sa.Connection, table: sa.Table, values: Mapping[str, Any], unique: list[str]
) -> sa.Insert:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        statement: Any = postgresql_insert(table)
    else:
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        statement = sqlite_insert(table)
    result: sa.Insert = statement.values(**values).on_conflict_do_nothing(index_elements=unique)
    return result


def _study_update() -> sa.UpdateBase:
    values: dict[str, Any] = {
        "instance_count": _study.c.instance_count + sa.bindparam("b_new"),
        "last_instance_at": sa.bindparam("b_at", type_=_study.c.last_instance_at.type),
        "calling_ae": sa.bindparam("b_calling_ae"),
    }
    for name in StudyValues.__dataclass_fields__:
        value = sa.bindparam(f"b_{name}", type_=sa.Text())
        if name not in _IDENTITY:
            value = sa.case((value != "", value), else_=_study.c[name])  # type: ignore[assignment]
        values[name] = value
    return (
        sa.update(_study)
        .where(_study.c.study_uid == sa.bindparam("b_study_uid"))
        .values(values)
        .returning(
            _study.c.id,
            _study.c.state,
            _study.c.revision,
            _study.c.instance_count,
            _study.c.assembled_count,
        )
    )


_INSERT_INSTANCES = sa.insert(_instance)
_INSERT_EVENT = sa.insert(_event)
UPDATE_STUDY = _study_update()
_SELECT_VERSIONS = sa.select(_instance.c.sop_uid, _instance.c.version, _instance.c.path).where(
    _instance.c.sop_uid.in_(sa.bindparam("sop_uids", expanding=True))
)
_SELECT_SERIES = (
    sa.select(_study.c.study_uid, _series.c.series_uid, _study.c.id, _series.c.id)
    .join_from(_series, _study, _series.c.study_id == _study.c.id)
    .where(
        _study.c.study_uid.in_(sa.bindparam("studies", expanding=True)),
        _series.c.series_uid.in_(sa.bindparam("series", expanding=True)),
    )
)
