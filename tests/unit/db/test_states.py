"""The table of legal moves."""

from __future__ import annotations

import pytest

from db import states
from db.states import StudyState


def test_every_state_can_be_left_and_reached() -> None:
    """No study can be stuck in a state by construction; FAILED is never a dead end."""
    reachable = {target for targets in states.LEGAL_MOVES.values() for target in targets}

    assert set(states.LEGAL_MOVES) == set(StudyState) == reachable
    assert all(states.LEGAL_MOVES.values())


def test_a_move_outside_the_table_is_refused_by_name() -> None:
    """The refusal names both states and what would be allowed."""
    with pytest.raises(states.IllegalMoveError, match="receiving to done; allowed: assembled"):
        states.check_move(StudyState.RECEIVING, StudyState.DONE)
