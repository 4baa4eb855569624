"""Unified procedure steps: names, UIDs and statuses of PS3.4 annex CC, for both roles."""

from __future__ import annotations

import enum

from dicom_nodes.errors import NodeError

PUSH = "1.2.840.10008.5.1.4.34.6.1"
WATCH = "1.2.840.10008.5.1.4.34.6.2"
PULL = "1.2.840.10008.5.1.4.34.6.3"
EVENT = "1.2.840.10008.5.1.4.34.6.4"
#: Well-known instances: subscribe to all workitems, to those that match.
GLOBAL = "1.2.840.10008.5.1.4.34.5"
FILTERED_GLOBAL = "1.2.840.10008.5.1.4.34.5.1"
WELL_KNOWN = frozenset({GLOBAL, FILTERED_GLOBAL})


class State(enum.StrEnum):
    """Procedure Step State (0074,1000)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


FINAL = frozenset({State.COMPLETED, State.CANCELED})


class Action(enum.IntEnum):
    """Action Type ID (table CC.2.1-1 ff.)."""

    CHANGE_STATE = 1
    REQUEST_CANCEL = 2
    SUBSCRIBE = 3
    UNSUBSCRIBE = 4
    SUSPEND = 5


class EventType(enum.IntEnum):
    """Event Type ID (table CC.2.4-1)."""

    STATE_REPORT = 1
    CANCEL_REQUESTED = 2
    PROGRESS_REPORT = 3


class Status(enum.IntEnum):
    """What a service answers; the text of each is in `MEANINGS`."""

    SUCCESS = 0x0000
    INVALID_VALUE = 0x0106
    DUPLICATE = 0x0111
    MISSING_ATTRIBUTE = 0x0120
    NOT_AUTHORIZED = 0x0124
    NO_SUCH_ACTION = 0x0123
    RESOURCE_LIMITATION = 0x0213
    CREATED_MODIFIED = 0xB300
    LOCK_NOT_GRANTED = 0xB301
    ALREADY_CANCELED = 0xB304
    COERCED = 0xB305
    ALREADY_COMPLETED = 0xB306
    MAY_NOT_BE_UPDATED = 0xC300
    WRONG_TRANSACTION = 0xC301
    ALREADY_IN_PROGRESS = 0xC302
    ONLY_CREATED_SCHEDULED = 0xC303
    FINAL_STATE_NOT_MET = 0xC304
    UNKNOWN_WORKITEM = 0xC307
    UNKNOWN_RECEIVER = 0xC308
    NOT_SCHEDULED = 0xC309
    NOT_IN_PROGRESS = 0xC310
    COMPLETED_ALREADY = 0xC311
    PERFORMER_DECLINES = 0xC313
    INAPPROPRIATE_ACTION = 0xC314


MEANINGS = {
    Status.INVALID_VALUE: "an attribute has a value that is not allowed",
    Status.DUPLICATE: "a workitem of this UID exists",
    Status.MISSING_ATTRIBUTE: "a required attribute is missing",
    Status.NOT_AUTHORIZED: "workitems are not created here by others",
    Status.NO_SUCH_ACTION: "no such action",
    Status.RESOURCE_LIMITATION: "too much",
    Status.CREATED_MODIFIED: "The Workitem was created with modifications.",
    Status.LOCK_NOT_GRANTED: "Deletion lock not granted.",
    Status.ALREADY_CANCELED: "The UPS is already in the requested state of CANCELED.",
    Status.COERCED: "The Workitem was updated with modifications.",
    Status.ALREADY_COMPLETED: "The UPS is already in the requested state of COMPLETED.",
    Status.MAY_NOT_BE_UPDATED: "the UPS may no longer be updated",
    Status.WRONG_TRANSACTION: "the correct Transaction UID was not provided",
    Status.ALREADY_IN_PROGRESS: "the UPS is already IN PROGRESS",
    Status.ONLY_CREATED_SCHEDULED: "the UPS may only become SCHEDULED by being created",
    Status.FINAL_STATE_NOT_MET: "the UPS does not meet the requirements of the final state",
    Status.UNKNOWN_WORKITEM: "no such UPS here",
    Status.UNKNOWN_RECEIVER: "the receiving AE title is not known here",
    Status.NOT_SCHEDULED: "the Procedure Step State of a new UPS must be SCHEDULED",
    Status.NOT_IN_PROGRESS: "the UPS is not IN PROGRESS",
    Status.COMPLETED_ALREADY: "the UPS is already COMPLETED",
    Status.PERFORMER_DECLINES: "the performer does not cancel",
    Status.INAPPROPRIATE_ACTION: "the action is not appropriate for this instance",
}


class Refused(NodeError):
    """A workitem operation that is not done; `status` says why in the standard's numbers."""

    permanent = True

    def __init__(self, status: Status, detail: str = "") -> None:
        super().__init__(f"{MEANINGS[status]}{': ' if detail else ''}{detail}")
        self.status = status
