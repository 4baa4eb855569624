"""The table of legal changes (PS3.4 CC.1.1-2), pair by pair."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from agent.workitems import rules
from dicom_nodes.ups import Refused, State, Status

S, P, C, X = State.SCHEDULED, State.IN_PROGRESS, State.COMPLETED, State.CANCELED
LOCK = "2.25.5"


@pytest.mark.parametrize(
    ("current", "wanted", "given", "outcome"),
    [
        (S, P, LOCK, Status.SUCCESS),
        (S, P, "", Status.WRONG_TRANSACTION),
        (S, C, LOCK, Status.NOT_IN_PROGRESS),
        (S, X, LOCK, Status.NOT_IN_PROGRESS),
        (S, S, LOCK, Status.ONLY_CREATED_SCHEDULED),
        (P, P, "2.25.6", Status.ALREADY_IN_PROGRESS),
        (P, P, LOCK, Status.ALREADY_IN_PROGRESS),
        (P, C, LOCK, Status.SUCCESS),
        (P, C, "2.25.6", Status.WRONG_TRANSACTION),
        (P, X, LOCK, Status.SUCCESS),
        (P, X, "", Status.WRONG_TRANSACTION),
        (P, S, LOCK, Status.ONLY_CREATED_SCHEDULED),
        (C, C, LOCK, Status.ALREADY_COMPLETED),
        (C, C, "2.25.6", Status.WRONG_TRANSACTION),
        (C, X, LOCK, Status.MAY_NOT_BE_UPDATED),
        (C, P, LOCK, Status.MAY_NOT_BE_UPDATED),
        (X, X, LOCK, Status.ALREADY_CANCELED),
        (X, C, LOCK, Status.MAY_NOT_BE_UPDATED),
        (X, P, LOCK, Status.MAY_NOT_BE_UPDATED),
    ],
)
def test_each_change_of_state_ends_as_the_table_says(
    current: State, wanted: State, given: str, outcome: Status
) -> None:
    """Refusals carry the standard's number; warnings are no refusals."""
    lock = "" if current is S else LOCK
    try:
        status = rules.change(current, wanted, lock, given)
    except Refused as error:
        status = error.status
        assert status >= 0xC300
    assert status is outcome


def test_an_update_needs_the_lock_of_a_claimed_workitem_and_none_of_a_scheduled_one() -> None:
    """And none is taken after the end."""
    plain, locked = Dataset(), Dataset()
    locked.TransactionUID = LOCK
    rules.check_update(S, "", plain)
    rules.check_update(P, LOCK, locked)
    for state, ds, status in (
        (S, locked, Status.NOT_IN_PROGRESS),
        (P, plain, Status.WRONG_TRANSACTION),
        (C, locked, Status.MAY_NOT_BE_UPDATED),
    ):
        with pytest.raises(Refused) as caught:
            rules.check_update(state, LOCK, ds)
        assert caught.value.status is status


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientID", "1"), ("StudyInstanceUID", "1.2"), ("ProcedureStepState", "COMPLETED")],
)
def test_an_update_changes_nobodys_identity(keyword: str, value: str) -> None:
    """Whose study it is and what state it has is not set from outside."""
    changes = Dataset()
    setattr(changes, keyword, value)
    with pytest.raises(Refused, match=keyword):
        rules.check_update(S, "", changes)
