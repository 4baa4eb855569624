"""What may happen to a workitem (PS3.4 table CC.1.1-2). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.dataset import Dataset

from dicom_nodes.ups import FINAL, Refused, State, Status

PRIORITIES = ("HIGH", "MEDIUM", "LOW")

#: Type 1 when a workitem is created (table CC.2.5-3), as far as nobody can guess them.
_REQUIRED = (
    "ScheduledProcedureStepPriority",
    "ProcedureStepLabel",
    "ScheduledProcedureStepStartDateTime",
    "InputReadinessState",
)

#: Not allowed in an update (table CC.2.5-3): identity, and what operations of their own change.
_FIXED = frozenset(
    {
        "SOPClassUID",
        "SOPInstanceUID",
        "ProcedureStepState",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "AdmissionID",
        "ReferencedRequestSequence",
    }
)

_S, _P, _C, _X = State.SCHEDULED, State.IN_PROGRESS, State.COMPLETED, State.CANCELED

#: (wanted, current) -> refusal or warning; pairs that are not listed are done.
_WITH_LOCK: Mapping[tuple[State, State], Status] = {
    (_P, _P): Status.ALREADY_IN_PROGRESS,
    (_P, _C): Status.MAY_NOT_BE_UPDATED,
    (_P, _X): Status.MAY_NOT_BE_UPDATED,
    (_C, _S): Status.NOT_IN_PROGRESS,
    (_C, _C): Status.ALREADY_COMPLETED,
    (_C, _X): Status.MAY_NOT_BE_UPDATED,
    (_X, _S): Status.NOT_IN_PROGRESS,
    (_X, _C): Status.MAY_NOT_BE_UPDATED,
    (_X, _X): Status.ALREADY_CANCELED,
}
_WARNINGS = frozenset({Status.ALREADY_COMPLETED, Status.ALREADY_CANCELED})


def change(current: State, wanted: State, lock: str, given: str) -> Status:
    """Whether a state may change: success, or a warning (nothing is to be done).

    Args:
        current: the state.
        wanted: the state asked for.
        lock: Transaction UID of who performs it; empty while nobody does.
        given: Transaction UID of who asks.

    Raises:
        Refused: it may not.
    """
    if wanted is State.SCHEDULED:
        raise Refused(Status.ONLY_CREATED_SCHEDULED)
    if not given:
        raise Refused(Status.WRONG_TRANSACTION, "it is missing")
    status = _WITH_LOCK.get((wanted, current), Status.SUCCESS)
    if current is not State.SCHEDULED and wanted is not State.IN_PROGRESS and given != lock:
        raise Refused(Status.WRONG_TRANSACTION)
    if status in _WARNINGS or status is Status.SUCCESS:
        return status
    raise Refused(status)


def check_update(current: State, lock: str, changes: Dataset) -> None:
    """Refuse an update that the state, the lock or the attributes forbid.

    Raises:
        Refused: with the status of it.
    """
    if current in FINAL:
        raise Refused(Status.MAY_NOT_BE_UPDATED)
    given = str(changes.get("TransactionUID") or "")
    if current is State.SCHEDULED and given:
        raise Refused(Status.NOT_IN_PROGRESS)
    if current is State.IN_PROGRESS and given != lock:
        raise Refused(Status.WRONG_TRANSACTION, "" if given else "it is missing")
    fixed = sorted(name for name in _FIXED if name in changes)
    if fixed:
        raise Refused(Status.INVALID_VALUE, f"{', '.join(fixed)} cannot be updated")
    _check_priority(changes)


def check_new(ds: Dataset) -> None:
    """Refuse a workitem that cannot be created.

    Raises:
        Refused: with the status of it.
    """
    if str(ds.get("ProcedureStepState") or "") != State.SCHEDULED:
        raise Refused(Status.NOT_SCHEDULED)
    if ds.get("TransactionUID"):
        raise Refused(Status.INVALID_VALUE, "TransactionUID must be empty")
    missing = [name for name in _REQUIRED if not ds.get(name)]
    if missing:
        raise Refused(Status.MISSING_ATTRIBUTE, ", ".join(missing))
    _check_priority(ds)


def lacks(ds: Dataset, wanted: State) -> list[str]:
    """What a workitem lacks that its final state requires (table CC.2.5-3, column final state)."""
    if wanted is State.CANCELED:
        progress = ds.get("ProcedureStepProgressInformationSequence") or [Dataset()]
        return [n for n in ("ProcedureStepCancellationDateTime",) if not progress[0].get(n)]
    performed = ds.get("UnifiedProcedureStepPerformedProcedureSequence") or [Dataset()]
    needed = (
        "PerformedProcedureStepStartDateTime",
        "PerformedProcedureStepEndDateTime",
        "PerformedWorkitemCodeSequence",
    )
    return [name for name in needed if not performed[0].get(name)]


def _check_priority(ds: Dataset) -> None:
    name = "ScheduledProcedureStepPriority"
    if name in ds and str(ds[name].value or "") not in PRIORITIES:
        raise Refused(Status.INVALID_VALUE, f"{name} is one of {', '.join(PRIORITIES)}")
