"""Which series this agent wrote: so that its results, sent back to it, never trigger it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from db.engine import reading
from db.models import Result

MAX_REMEMBERED = 50_000


class OwnSeries:
    """Answers from the record, and remembers: a series is ours from its first object, or never."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._known: dict[str, bool] = {}

    def is_own(self, series_uid: str) -> bool:
        """Whether a result of ours belongs to this series."""
        known = self._known.get(series_uid)
        if known is not None:
            return known
        query = sa.select(Result.id).where(Result.series_uid == series_uid).limit(1)
        with reading(self._sessions) as session:
            own = session.execute(query).first() is not None
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[series_uid] = own
        return own
