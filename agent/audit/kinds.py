"""What can be audited, and one such occurrence. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """What happened; `agent.audit.messages.EVENTS` says which DICOM event it is."""

    STARTED = "application_started"
    STOPPED = "application_stopped"
    CONFIGURATION_CHANGED = "configuration_changed"
    LOGIN = "login"
    LOGIN_FAILED = "login_failed"
    LOGOUT = "logout"
    REFUSED = "access_refused"
    USERS_CHANGED = "users_changed"
    #: a page, picture or answer about one study
    VIEWED = "study_viewed"
    #: a list or search, which may show many patients
    SEARCHED = "searched"
    #: images or results taken out (DICOMweb)
    RETRIEVED = "study_retrieved"
    #: images put in (DICOMweb)
    STORED = "study_stored"
    #: feedback, reading state, retry, work item
    CHANGED = "study_changed"
    PRIORITY_CHANGED = "priority_changed"
    EXPORTED = "exported"
    AUDIT_USED = "audit_log_used"


class Outcome(enum.IntEnum):
    """EventOutcomeIndicator."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


@dataclass(frozen=True)
class Occurrence:
    """One thing to be audited.

    Attributes:
        address: of the machine from which it came; empty for this one.
        study: key, UID or id of the study it was about.
        detail: route template or our own words.
    """

    kind: Kind
    who: str
    role: str = ""
    address: str = ""
    study: str = ""
    detail: str = ""
    outcome: Outcome = Outcome.SUCCESS
