"""What the intake tells the record about one received instance, and what came of it."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass


@dataclass(frozen=True)
class StudyValues:
    """Columns of a study as one instance states them."""

    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_time: str = ""
    description: str = ""
    body_part: str = ""
    station_name: str = ""
    institution: str = ""
    patient_location: str = ""
    ordered_priority: str = ""


@dataclass(frozen=True)
class SeriesValues:
    """Columns of a series as one instance states them."""

    modality: str = ""
    description: str = ""
    protocol: str = ""
    body_part: str = ""
    number: int | None = None


@dataclass(frozen=True)
class Received:
    """One instance whose bytes are durable under `path`."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    size_bytes: int
    received_at: dt.datetime
    calling_ae: str = ""
    number: int | None = None
    sha256: str | None = None
    own_result: bool = False
    study: StudyValues = StudyValues()
    series: SeriesValues = SeriesValues()


class Outcome(enum.Enum):
    """What the record made of an instance."""

    #: first bytes under this SOP Instance UID
    NEW = "new"
    #: this very file is recorded already
    KNOWN = "known"
    #: other bytes under a UID that is recorded
    VERSION = "version"
