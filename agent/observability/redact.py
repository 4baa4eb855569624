"""What may stand in a log line: allow-listed fields with plain values, and errors in safe words.

An allow-list, because a deny-list forgets: a new field is withheld until somebody has thought about
it, and `tests/unit/agent/observability` fails until then.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

from agent import faults

WITHHELD = "[withheld]"
MAX_TEXT = 500

#: Put there by structlog itself.
STRUCTURE = frozenset({"event", "level", "logger", "timestamp", "exception"})

#: Identifiers of our own making or of the configuration, numbers, states and our own sentences.
#: `study` is Study.key, never a UID; `why`, `reason`, `cause` and `error` hold our own words
#: (`agent.faults.describe`).
FIELDS = frozenset(
    """
    aborted address ae analysis at attempts calling_ae cause check count delivery destination
    dicom_port engine errno error error_type files frames freed give_up host index indexed
    instances interrupted kind late matches missing objects pack peer port positives priority
    quarantined reading_state reason restarts revision room rule seconds series severity share
    status study sweep unfinished unreadable version volumes warnings web_port why
    """.split()  # noqa: SIM905 - a list of words reads best as words
) | frozenset(
    # Numbers of a training run: no study, no patient.
    """
    auroc done epoch eta_s feature_rank feature_std gradient_norm learning_rate loss mend modality
    momentum of step studies
    """.split()  # noqa: SIM905
)

#: Libraries whose messages name their own affairs only. The text of all others is withheld:
#: pynetdicom and pydicom quote datasets, SQLAlchemy quotes parameters.
TRUSTED_LIBRARIES = frozenset({"alembic", "apscheduler", "uvicorn"})

Event = MutableMapping[str, Any]


def redact_fields(_logger: Any, _method: str, event: Event) -> Event:
    """Keep what is allowed, plain and short; show that something was withheld."""
    for name, value in event.items():
        if name in STRUCTURE or name.startswith("_"):
            continue
        event[name] = plain(value) if name in FIELDS else WITHHELD
    return event


def describe_exception(_logger: Any, _method: str, event: Event) -> Event:
    """Replace exception information by types, places and our own messages, causes included."""
    info = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = " <- ".join(_described(error))
    return event


def withhold_foreign_text(_logger: Any, _method: str, event: Event) -> Event:
    """Libraries' sentences pass only from those trusted; of the others, who and where."""
    record = event["_record"]
    if record.name.split(".")[0] not in TRUSTED_LIBRARIES:
        event["event"] = "library_message"
        event["reason"] = f"text withheld, from {record.module}:{record.lineno}"
    return event


def plain(value: Any) -> Any:
    """The value if it is a number, a short text or a collection of such; else a mark."""
    match value:
        case BaseException():
            return faults.describe(value)
        case None | bool() | int() | float():
            return value
        case str():
            return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"
        case list() | tuple() | set() | frozenset():
            return [plain(one) for one in value]
        case _:
            return WITHHELD


def _described(error: BaseException) -> list[str]:
    chain: list[str] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 5:
        frames = traceback.extract_tb(current.__traceback__)[-4:]
        places = [f"{'/'.join(f.filename.split('/')[-2:])}:{f.lineno} {f.name}" for f in frames]
        name = type(current).__name__
        said = faults.describe(current)
        words = name if said.startswith(name) else f"{name}: {said}"
        chain.append(f"{words} ({' > '.join(places)})" if places else words)
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return chain
