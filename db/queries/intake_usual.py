"""The usual case of recording received instances, in two statements.

Nearly every instance is new, of a series that is known, and not ours. For these the statements are
compiled once and given to the driver as they are: SQLAlchemy's own execution costs more CPU than
the database does, and at one association every instance is a transaction. Anything unusual rolls
back and takes `db.queries.intake.record`.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from db.base import UtcDateTime
from db.models.study import Instance, Series, Study
from db.queries import intake
from db.queries.received import Outcome, Received

_study = cast("sa.Table", Study.__table__)
_series = cast("sa.Table", Series.__table__)
_instance = cast("sa.Table", Instance.__table__)


class Recorder:
    """Writes batches of received instances, each in its own transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        """Compile the statements for the engine's database."""
        self._engine = engine
        self._insert = _Prepared(_insert_statement(), engine.dialect)
        self._update = _Prepared(intake.UPDATE_STUDY, engine.dialect)

    def record(self, batch: Sequence[Received]) -> list[Outcome]:
        """Record a batch and commit; outcomes are in the batch's order.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: nothing of the batch was recorded.
        """
        if not any(item.own_result for item in batch):
            try:
                with self._engine.begin() as connection:
                    self._record_usual(connection, batch)
            except (_UnusualError, sa.exc.IntegrityError):
                pass
            else:
                return [Outcome.NEW] * len(batch)
        with self._engine.begin() as connection:
            return intake.record(connection, batch)

    def _record_usual(self, connection: sa.Connection, batch: Sequence[Received]) -> None:
        rows = [self._insert.parameters(vars(item)) for item in batch]
        inserted = connection.exec_driver_sql(self._insert.sql, rows)
        if inserted.rowcount != len(batch):
            raise _UnusualError
        by_study: dict[str, list[Received]] = defaultdict(list)
        for item in batch:
            by_study[item.study_uid].append(item)
        for study_uid in sorted(by_study):
            items = by_study[study_uid]
            values = intake.study_parameters(items[-1], len(items))
            row = connection.exec_driver_sql(
                self._update.sql, self._update.parameters(values)
            ).one()
            intake.tell_if_late(connection, row, len(items), items[-1].received_at)


class _UnusualError(Exception):
    """The batch holds something that the two statements do not cover."""


class _Prepared:
    """A statement compiled for one dialect."""

    def __init__(self, statement: sa.ClauseElement, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.sql: str = compiled.string
        self._names: Sequence[str] = compiled.positiontup or tuple(compiled.params)
        self._positional: bool = compiled.positional
        self._fixed: Mapping[str, Any] = {
            name: value for name, value in compiled.params.items() if value is not None
        }
        self._timestamp = UtcDateTime().bind_processor(dialect)

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Return the driver's parameters: a tuple or a mapping, as the dialect wants."""
        pairs = ((name, self._value(name, values)) for name in self._names)
        return tuple(value for _, value in pairs) if self._positional else dict(pairs)

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        value = values[name] if name in values else self._fixed.get(name)
        if isinstance(value, dt.datetime) and self._timestamp is not None:
            return self._timestamp(value)
        return value


def _insert_statement() -> sa.Insert:
    given = (
        "sop_uid",
        "sop_class_uid",
        "transfer_syntax_uid",
        "number",
        "path",
        "size_bytes",
        "sha256",
        "calling_ae",
        "received_at",
    )
    source = (
        sa.select(
            _series.c.id,
            _series.c.study_id,
            sa.literal_column("0"),
            *(_given(name) for name in given),
        )
        .join_from(_series, _study, _series.c.study_id == _study.c.id)
        .where(
            _study.c.study_uid == sa.bindparam("study_uid"),
            _series.c.series_uid == sa.bindparam("series_uid"),
            ~_series.c.own_result,
            ~sa.exists().where(_instance.c.sop_uid == sa.bindparam("sop_uid")),
        )
    )
    return sa.insert(_instance).from_select(
        ["series_id", "study_id", "version", *given], source, include_defaults=False
    )


def _given(name: str) -> sa.ColumnElement[Any]:
    # PostgreSQL takes a NULL in a select list for text; only an integer needs to be told apart.
    value = sa.bindparam(name, type_=_instance.c[name].type)
    return sa.cast(value, sa.Integer) if name == "number" else value
