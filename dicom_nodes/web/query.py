"""What a QIDO-RS request asks (PS3.18 section 8.3.4 and 10.6): match keys, fields, paging.

Levels follow table 10.6.1-5. A match key that the server does not know is refused: to ignore it
would answer with other patients' studies.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from dicom_nodes.web.errors import WebRequestError

MAX_LIST = 500
MAX_TEXT = 1024


class Level(enum.IntEnum):
    """What is searched for."""

    STUDY = 0
    SERIES = 1
    INSTANCE = 2


class Kind(enum.Enum):
    """How a key matches (PS3.4 C.2.2.2)."""

    UID = "uid"
    TEXT = "text"
    RANGE = "range"
    NUMBER = "number"


#: Keyword -> level of the attribute, and how it matches.
KEYS: dict[str, tuple[Level, Kind]] = {
    "StudyInstanceUID": (Level.STUDY, Kind.UID),
    "StudyDate": (Level.STUDY, Kind.RANGE),
    "StudyTime": (Level.STUDY, Kind.RANGE),
    "AccessionNumber": (Level.STUDY, Kind.TEXT),
    "ModalitiesInStudy": (Level.STUDY, Kind.TEXT),
    "PatientName": (Level.STUDY, Kind.TEXT),
    "PatientID": (Level.STUDY, Kind.TEXT),
    "IssuerOfPatientID": (Level.STUDY, Kind.TEXT),
    "PatientBirthDate": (Level.STUDY, Kind.RANGE),
    "PatientSex": (Level.STUDY, Kind.TEXT),
    "StudyDescription": (Level.STUDY, Kind.TEXT),
    "InstitutionName": (Level.STUDY, Kind.TEXT),
    "RequestedProcedurePriority": (Level.STUDY, Kind.TEXT),
    "SeriesInstanceUID": (Level.SERIES, Kind.UID),
    "Modality": (Level.SERIES, Kind.TEXT),
    "SeriesNumber": (Level.SERIES, Kind.NUMBER),
    "SeriesDescription": (Level.SERIES, Kind.TEXT),
    "BodyPartExamined": (Level.SERIES, Kind.TEXT),
    "SOPInstanceUID": (Level.INSTANCE, Kind.UID),
    "SOPClassUID": (Level.INSTANCE, Kind.UID),
    "InstanceNumber": (Level.INSTANCE, Kind.NUMBER),
}
#: Lists are for UIDs (PS3.4 C.2.2.2.2); viewers send them for modalities too.
_LISTS = frozenset({"ModalitiesInStudy", "Modality"})
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_RANGE = re.compile(r"[0-9.]*(-[0-9.]*)?")
_CONTROL = frozenset({"limit", "offset", "fuzzymatching", "includefield", "accept"})


@dataclass(frozen=True)
class Match:
    """One match key.

    Attributes:
        values: any of these, for UIDs, numbers and modalities; one text (perhaps with ``*`` and
            ``?``) otherwise; (lowest, highest), perhaps empty, of a range.
    """

    keyword: str
    level: Level
    kind: Kind
    values: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """A search; `fields` are the keywords or tags asked for beyond the usual ones."""

    level: Level
    matches: tuple[Match, ...] = ()
    fields: frozenset[str] = field(default_factory=frozenset)
    all_fields: bool = False
    limit: int = 0
    offset: int = 0
    warnings: tuple[str, ...] = ()

    def of(self, level: Level) -> tuple[Match, ...]:
        """The match keys of one level."""
        return tuple(match for match in self.matches if match.level is level)


def parse(params: Iterable[tuple[str, str]], level: Level, most: int) -> Query:
    """Read the query parameters of a search.

    Args:
        params: names and values, decoded.
        level: of the resource that is searched.
        most: results that one answer may hold.

    Raises:
        WebRequestError: an unknown key, or a value that is none.
    """
    matches: dict[str, Match] = {}
    control: dict[str, list[str]] = {}
    for name, value in params:
        if name.lower() in _CONTROL:
            control.setdefault(name.lower(), []).append(value)
            continue
        match = _match(name, value, level)
        if match is not None:
            matches[match.keyword] = match
    fields = [
        piece.strip() for text in control.get("includefield", ()) for piece in text.split(",")
    ]
    warnings = []
    if any(text.strip().lower() == "true" for text in control.get("fuzzymatching", ())):
        warnings.append(
            "The fuzzymatching parameter is not supported. "
            "Only literal matching has been performed."
        )
    limit = _number(control, "limit", most)
    return Query(
        level,
        tuple(matches.values()),
        frozenset(keyword for text in fields if (keyword := _field(text))),
        all_fields="all" in fields,
        limit=min(limit, most),
        offset=_number(control, "offset", 0),
        warnings=tuple(warnings),
    )


def keyword_of(attribute: str) -> str:
    """Keyword of an attribute given by keyword or by tag; empty when the dictionary has none."""
    if _TAG.fullmatch(attribute):
        return keyword_for_tag(int(attribute, 16))
    return attribute if tag_for_keyword(attribute) is not None else ""


def _match(name: str, value: str, level: Level) -> Match | None:
    """The match key of one parameter; None = universal matching."""
    keyword = keyword_of(name)
    if keyword not in KEYS or KEYS[keyword][0] > level:
        shown = keyword or "one of the parameters"
        raise WebRequestError(f"{shown} cannot be searched for here; leave it out")
    if len(value) > MAX_TEXT * MAX_LIST or "\0" in value:
        raise WebRequestError(f"{keyword}: not a value")
    key_level, kind = KEYS[keyword]
    values = _values(keyword, kind, value.strip())
    if not values or (kind is Kind.TEXT and set(values) == {"*"}):
        return None
    return Match(keyword, key_level, kind, values)


def _values(keyword: str, kind: Kind, value: str) -> tuple[str, ...]:
    if kind is Kind.RANGE:
        return _range(keyword, value)
    if kind is Kind.TEXT and keyword not in _LISTS:
        if len(value) > MAX_TEXT:
            raise WebRequestError(f"{keyword}: longer than such a value may be")
        return (value,) if value else ()
    pieces = [piece.strip() for piece in re.split(r"[,\\]", value)]
    values = tuple(dict.fromkeys(piece for piece in pieces if piece))
    if len(values) > MAX_LIST:
        raise WebRequestError(f"{keyword}: more than {MAX_LIST} values")
    if kind is Kind.NUMBER and not all(re.fullmatch(r"-?\d{1,9}", piece) for piece in values):
        raise WebRequestError(f"{keyword}: not a number")
    return values


def _range(keyword: str, value: str) -> tuple[str, ...]:
    if not value or value == "-":
        return ()
    if not _RANGE.fullmatch(value):
        raise WebRequestError(f"{keyword}: not a value or a range (from-to) of digits")
    low, dash, high = value.partition("-")
    return (low, high) if dash else (low, low)


def _field(text: str) -> str:
    """Keyword of a field asked for; unknown ones are left out of the answer (PS3.18 8.3.4.3)."""
    return "" if text == "all" else keyword_of(text)


def _number(control: dict[str, list[str]], name: str, default: int) -> int:
    values = control.get(name)
    if not values or not values[-1].strip():
        return default
    if not re.fullmatch(r"\d{1,9}", values[-1].strip()):
        raise WebRequestError(f"{name} is not a number of results")
    return int(values[-1])
