"""What rules may know about a study, and whether a rule's conditions hold. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass

from agent.settings import Match
from db.models import Series, Study
from inference.study import IMAGE_MODALITIES

DAYS_PER_YEAR = 365.2425


@dataclass(frozen=True)
class StudyFacts:
    """A study as routing and priority rules see it; no name, no identifiers."""

    modalities: frozenset[str]
    body_part: str = ""
    texts: tuple[str, ...] = ()
    station: str = ""
    location: str = ""
    calling_ae: str = ""
    ordered_priority: str = ""
    age_years: float | None = None
    image_series: int = 0


def of(study: Study, series: Iterable[Series]) -> StudyFacts:
    """Summarize a study's rows; series this agent wrote itself do not count."""
    received = [s for s in series if not s.own_result]
    texts = [study.description]
    for one in received:
        texts += [one.description, one.protocol, one.body_part]
    return StudyFacts(
        modalities=frozenset(s.modality for s in received if s.modality),
        body_part=study.body_part,
        texts=tuple(t for t in texts if t),
        station=study.station_name,
        location=study.patient_location,
        calling_ae=study.calling_ae,
        ordered_priority=study.ordered_priority,
        age_years=age_years(study.patient_birth_date, study.study_date),
        image_series=sum(s.modality in IMAGE_MODALITIES for s in received),
    )


def age_years(birth_date: str, study_date: str) -> float | None:
    """Age at the study from two DICOM DA values; None when either is missing or odd."""
    try:
        born = dt.datetime.strptime(birth_date, "%Y%m%d").replace(tzinfo=dt.UTC)
        examined = dt.datetime.strptime(study_date, "%Y%m%d").replace(tzinfo=dt.UTC)
    except ValueError:
        return None
    years = (examined - born).days / DAYS_PER_YEAR
    return years if years >= 0 else None


def matches(match: Match, facts: StudyFacts) -> bool:
    """Whether every condition given in `match` holds; an unknown age fulfils no age bound."""
    words = (facts.body_part, *facts.texts)
    conditions = (
        _any(match.modality, facts.modalities, whole=True),
        _any(match.body_part, [facts.body_part]),
        _any(match.text, words),
        match.not_text is None or not _any(match.not_text, words),
        _any(match.station, [facts.station]),
        _any(match.location, [facts.location]),
        _any(match.calling_ae, [facts.calling_ae], whole=True),
        _any(match.ordered_priority, [facts.ordered_priority], whole=True),
        match.age_min is None or (facts.age_years is not None and facts.age_years >= match.age_min),
        match.age_max is None or (facts.age_years is not None and facts.age_years <= match.age_max),
        match.min_series is None or facts.image_series >= match.min_series,
    )
    return all(conditions)


def _any(pattern: str | None, values: Iterable[str], *, whole: bool = False) -> bool:
    if pattern is None:
        return True
    expression = re.compile(pattern, re.IGNORECASE)
    search = expression.fullmatch if whole else expression.search
    return any(search(value) for value in values)
