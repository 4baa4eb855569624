"""States of a study and of a delivery, and the table of legal moves."""

from __future__ import annotations

import enum


class StudyState(enum.StrEnum):
    """Where a study is on its one-way path (architecture: the record)."""

    #: instances are arriving
    RECEIVING = "receiving"
    #: complete by rule; waiting to be routed
    ASSEMBLED = "assembled"
    #: routed to a pack; waiting for the model
    QUEUED = "queued"
    #: claimed by a worker
    ANALYSING = "analysing"
    #: analysis and priority are committed; result objects are being made
    COMPOSING = "composing"
    #: result objects exist; the outbox sends them
    DELIVERING = "delivering"
    #: every delivery of this revision arrived (or pushes nothing in shadow mode)
    DONE = "done"
    #: not for any pack; the reason is on the study
    SKIPPED = "skipped"
    #: gave up after bounded attempts; visible and retryable
    FAILED = "failed"


#: state -> states it may move to. Late instances reopen a study (to RECEIVING) from every state in
#: which no room is at work on it; a study being analysed or composed is reopened right after.
LEGAL_MOVES: dict[StudyState, frozenset[StudyState]] = {
    StudyState.RECEIVING: frozenset({StudyState.ASSEMBLED}),
    StudyState.ASSEMBLED: frozenset(
        {StudyState.QUEUED, StudyState.SKIPPED, StudyState.FAILED, StudyState.RECEIVING}
    ),
    StudyState.QUEUED: frozenset({StudyState.ANALYSING, StudyState.FAILED, StudyState.RECEIVING}),
    StudyState.ANALYSING: frozenset({StudyState.COMPOSING, StudyState.QUEUED, StudyState.FAILED}),
    StudyState.COMPOSING: frozenset({StudyState.DELIVERING, StudyState.FAILED}),
    StudyState.DELIVERING: frozenset(
        {StudyState.DONE, StudyState.FAILED, StudyState.RECEIVING, StudyState.COMPOSING}
    ),
    StudyState.DONE: frozenset({StudyState.RECEIVING, StudyState.ASSEMBLED}),
    StudyState.SKIPPED: frozenset({StudyState.RECEIVING, StudyState.ASSEMBLED}),
    StudyState.FAILED: frozenset(
        {
            StudyState.RECEIVING,
            StudyState.ASSEMBLED,
            StudyState.QUEUED,
            StudyState.COMPOSING,
            StudyState.DELIVERING,
        }
    ),
}


class DeliveryState(enum.StrEnum):
    """The life of one outbox row."""

    #: waiting for its turn (or its next attempt)
    PENDING = "pending"
    #: leased by a sender
    SENDING = "sending"
    #: the destination answered success; the proof that it keeps it is still to come
    SENT = "sent"
    #: the destination committed itself to keep it (storage commitment)
    COMMITTED = "committed"
    #: the destination holds it: read back under the right identity, or no proof was asked for
    DELIVERED = "delivered"
    #: given up after the configured age, or refused for good; raises the alarm
    DEAD = "dead"
    #: recorded, not sent: pack or destination is in shadow mode
    SHADOW = "shadow"
    #: replaced by a later revision before it was sent
    SUPERSEDED = "superseded"


#: Deliveries that were not taken by their destination yet.
UNSENT_DELIVERIES = frozenset({DeliveryState.PENDING, DeliveryState.SENDING})

#: Deliveries that were taken and not yet proven to have arrived.
UNPROVEN_DELIVERIES = frozenset({DeliveryState.SENT, DeliveryState.COMMITTED})

#: Deliveries that keep a study in DELIVERING.
OPEN_DELIVERIES = UNSENT_DELIVERIES | UNPROVEN_DELIVERIES


class DraftState(enum.StrEnum):
    """The life of a drafted report; nothing in the flow of the study waits for it."""

    #: waiting for the language model, or for the next attempt
    WAITING = "waiting"
    #: leased by a worker
    DRAFTING = "drafting"
    #: written (by a model, or by our template) and composed
    DONE = "done"
    #: given up; the template's draft stays
    FAILED = "failed"
    #: a newer revision came first
    SUPERSEDED = "superseded"


class ReadingState(enum.StrEnum):
    """What the radiologist has done with the study."""

    UNREAD = "unread"
    READING = "reading"
    READ = "read"


class IllegalMoveError(ValueError):
    """A study was asked to make a move the table does not allow."""


def check_move(current: StudyState, target: StudyState) -> None:
    """Refuse a move that is not in `LEGAL_MOVES`.

    Raises:
        IllegalMoveError: names both states and what would be allowed.
    """
    if target not in LEGAL_MOVES[current]:
        allowed = ", ".join(sorted(LEGAL_MOVES[current])) or "nothing"
        raise IllegalMoveError(f"study cannot go from {current} to {target}; allowed: {allowed}")
