"""Which instances are results of ours: so that they, sent back to us, never trigger anything."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from agent import PRODUCT
from db.engine import reading
from db.models import Result
from dicom_nodes.headers import Header

MAX_REMEMBERED = 50_000


class OwnSeries:
    """Answers from the header where it names us as the maker, else from the record.

    The header knows what the record cannot: results that retention has forgotten, and those of
    another agent beside the same archive, with which we would else answer each other for ever. The
    record knows series whose maker an archive has replaced.
    """

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._known: dict[str, bool] = {}

    def is_own(self, header: Header) -> bool:
        """Whether an instance is a result of this agent, or of another of its kind."""
        if header.manufacturer == header.model_name == PRODUCT:
            return True
        return self._is_recorded(header.series_uid)

    def _is_recorded(self, series_uid: str) -> bool:
        """A series is ours from its first object, or never, so an answer is remembered."""
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
