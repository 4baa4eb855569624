"""The usual case of recording received instances, in two statements.

Nearly every instance is new, of a series that is known, and not ours. For these the statements are
compiled once and given to the driver as they are: SQLAlchemy's own execution costs more CPU than
the database does, and at one association every instance is a transaction. Anything unusual rolls
back and takes `db.queries.intake.record`.
"""

from __future__ import annotations

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
        self._insert = _Prepared(_insert_statement(), engine.dialect, "received_at")
        self._update = _Prepared(intake.UPDATE_STUDY, engine.dialect, "b_at")
        self._driver_error: type[Exception] = engine.dialect.loaded_dbapi.Error

    def record(self, batch: Sequence[Received]) -> list[Outcome]:
        """Record a batch and commit; outcomes are in the batch's order.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: nothing of the batch was recorded.
        """
        if not any(item.own_result for item in batch):
            try:
                with self._engine.begin() as connection:
                    self._record_usual(connection, batch)
            except (_UnusualError, self._driver_error):
                pass  # whatever it is, the general way says it in SQLAlchemy's words
            else:
                return [Outcome.NEW] * len(batch)
        with self._engine.begin() as connection:
            return intake.record(connection, batch)

    def _record_usual(self, connection: sa.Connection, batch: Sequence[Received]) -> None:
        by_study: dict[str, list[Received]] = defaultdict(list)
        for item in batch:
            by_study[item.study_uid].append(item)
        cursor = connection.connection.cursor()  # the driver's own, in this transaction
        try:
            rows = [self._insert.parameters(vars(item)) for item in batch]
            cursor.executemany(self._insert.sql, rows)
            if cursor.rowcount != len(batch):
                raise _UnusualError
            for study_uid in sorted(by_study):
                items = by_study[study_uid]
                values = intake.study_parameters(items[-1], len(items))
                cursor.execute(self._update.sql, self._update.parameters(values))
                touched = cursor.fetchone()
                if touched is None:
                    raise _UnusualError
                row = intake.Touched(*touched)
                intake.tell_if_late(connection, row, len(items), items[-1].received_at)
        finally:
            cursor.close()


class _UnusualError(Exception):
    """The batch holds something that the two statements do not cover."""


class _Prepared:
    """A statement compiled for one dialect."""

    def __init__(self, statement: sa.ClauseElement, dialect: Dialect, time: str) -> None:
        """Compile.

        Args:
            statement: what to execute.
            dialect: of which database.
            time: the one parameter that is a timestamp.
        """
        compiled: Any = statement.compile(dialect=dialect)
        self.sql: str = compiled.string
        self._names: Sequence[str] = compiled.positiontup or tuple(compiled.params)
        self._positional: bool = compiled.positional
        self._fixed: Mapping[str, Any] = compiled.params  # values of the statement itself
        self._time = time
        self._timestamp = UtcDateTime().bind_processor(dialect) or (lambda value: value)

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Return the driver's parameters: a tuple or a mapping, as the dialect wants."""
        known = {**self._fixed, **values}
        known[self._time] = self._timestamp(known[self._time])
        if self._positional:
            return tuple([known[name] for name in self._names])
        return {name: known[name] for name in self._names}


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
