"""Workitems on SQLite and on PostgreSQL: one claim wins, order and sweep agree with the studies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from factories import rows
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from agent.settings import PrioritySettings, UpsSettings
from agent.workitems import following
from agent.workitems.service import Workitems
from db.queries import workitems as queries
from dicom_nodes.ups import Refused, Status


def test_of_many_who_claim_at_once_one_gets_it(sessions: sessionmaker[Session]) -> None:
    """The others are told that it is in progress."""
    with sessions.begin() as session:
        study = rows.study(session)
        row = following.follow(session, study, rows.NOW)
        assert row is not None
        uid = row.uid
    workitems = Workitems(sessions, UpsSettings(), clock=lambda: rows.NOW)

    def claim(number: int) -> Status:
        try:
            return workitems.change_state(uid, "IN PROGRESS", f"2.25.{number}", f"R{number}")
        except Refused as error:
            return error.status

    with ThreadPoolExecutor(6) as pool:
        ended = list(pool.map(claim, range(1, 7)))

    assert sorted(ended) == [Status.SUCCESS, *[Status.ALREADY_IN_PROGRESS] * 5]


def test_the_list_is_whole_and_in_order_page_by_page(
    sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None twice, none left out, the most urgent first; the sweep then finds nothing to do."""
    monkeypatch.setattr(queries, "_PAGE", 2)
    policy = PrioritySettings()
    with sessions.begin() as session:
        for number, ordered in enumerate(("LOW", "STAT", "", "stat", "HIGH", "LOW"), start=1):
            rows.study(session, number=number, ordered_priority=ordered)
    assert following.catch_up(sessions, policy, rows.NOW) == 6
    assert following.catch_up(sessions, policy, rows.NOW) == 0

    workitems = Workitems(sessions, UpsSettings(), policy)
    found = [str(ds.PatientID) for ds in workitems.search(Dataset())]
    expected = ["PAT0002", "PAT0004", "PAT0005", "PAT0003", "PAT0001", "PAT0006"]
    assert found == expected
