"""The rule tester: a received study, or one file of one that never came, on trial; and history."""

from __future__ import annotations

import datetime as dt
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, selectinload

from agent import facts as study_facts
from agent.errors import AgentError
from agent.routing import rules
from agent.routing.book import RuleBook
from agent.routing.trial import GivenSeries, Trial, try_out
from db.models import Instance, Series, Study
from inference.volumes import eligibility
from inference.volumes.eligibility import SeriesSummary

MAX_HEAD_BYTES = 4 * 1024 * 1024
"""So much of a file is read from disk: headers of multi-frame images are long."""
MULTI_FRAME = frozenset(
    uid for uid in eligibility.VOLUME_CLASSES if uid.endswith((".2.1", ".2.2", ".4.1", ".4.4"))
)
MAX_CHANGED = 200
NO_RULE = "(no rule)"
ONE_FILE = (
    "One file stands for its study: other series, the number of slices, the sender's AE title and "
    "the order are not known from it."
)
NO_DICOM = (
    "this is not the beginning of a DICOM file, or its header is too long; "
    "try: worklist-agent rules test FILE"
)
TAGS = """SOPClassUID StudyDescription SeriesDescription ProtocolName BodyPartExamined Modality
StationName CurrentPatientLocation PatientBirthDate StudyDate SeriesNumber ImageType
PhotometricInterpretation BurnedInAnnotation RequestedProcedurePriority NumberOfFrames"""


class NotTestable(AgentError):
    """The file cannot be put on trial; nothing of its content is said."""

    permanent = True


@dataclass(frozen=True)
class Changed:
    """A study that the rules of now would treat otherwise than those of then."""

    study_id: int
    study_key: str
    received: dt.datetime
    description: str
    then: str
    now: str


@dataclass(frozen=True)
class History:
    """What the rules of now would have matched.

    Attributes:
        counts: (rule, outcome, studies), in the order of the rules; the last is no rule.
        changed: at most `MAX_CHANGED` of them, newest first.
    """

    since: dt.datetime
    studies: int
    counts: tuple[tuple[str, str, int], ...]
    changed: tuple[Changed, ...]
    changed_count: int


def of_study(session: Session, study: Study, book: RuleBook) -> Trial:
    """A received study under the rules of now."""
    query = (
        sa.select(Instance.series_id, Instance.sop_class_uid, sa.func.count())
        .where(Instance.study_id == study.id, Instance.version == 0)
        .group_by(Instance.series_id, Instance.sop_class_uid)
    )
    found = session.execute(query).all()
    given = []
    for series in study.series:
        classes = {uid: n for ident, uid, n in found if ident == series.id}
        given.append(_given(series, classes))
    notes = ["Series are judged by the index; slices and geometry are checked when they are read."]
    return try_out(study_facts.of(study, study.series), given, book, notes)


def of_path(path: Path, book: RuleBook) -> Trial:
    """A file on disk; only its head is read.

    Raises:
        NotTestable: it cannot be read or is not DICOM.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(MAX_HEAD_BYTES)
    except OSError as error:
        raise NotTestable(f"the file cannot be read: {error.strerror}") from error
    return of_bytes(head, book)


def of_bytes(head: bytes, book: RuleBook) -> Trial:
    """The head of a DICOM file, as if it were all of its study; nothing is kept.

    Raises:
        NotTestable: it is not DICOM, or its header is longer than what is here.
    """
    dataset = _parse(head)
    series = Series(
        modality=_text(dataset, "Modality"),
        description=_text(dataset, "SeriesDescription"),
        protocol=_text(dataset, "ProtocolName"),
        body_part=_text(dataset, "BodyPartExamined"),
        own_result=False,
    )
    study = Study(
        description=_text(dataset, "StudyDescription"),
        body_part=series.body_part,
        station_name=_text(dataset, "StationName"),
        patient_location=_text(dataset, "CurrentPatientLocation"),
        calling_ae="",
        ordered_priority=_text(dataset, "RequestedProcedurePriority"),
        patient_birth_date=_text(dataset, "PatientBirthDate"),
        study_date=_text(dataset, "StudyDate"),
    )
    summary = SeriesSummary(
        modality=series.modality,
        sop_classes=frozenset({_text(dataset, "SOPClassUID")} - {""}),
        frames=eligibility.MIN_SLICES,
        image_types=(tuple(str(v) for v in dataset.get("ImageType") or ()),),
        photometric=frozenset({_text(dataset, "PhotometricInterpretation")} - {""}),
        description=series.description,
        burned_in=_text(dataset, "BurnedInAnnotation") == "YES",
    )
    number = _text(dataset, "SeriesNumber")
    given = GivenSeries(int(number) if number.lstrip("-").isdecimal() else None, summary)
    return try_out(study_facts.of(study, [series]), [given], book, [ONE_FILE])


def history(session: Session, book: RuleBook, now: dt.datetime, days: float) -> History:
    """What the rules of now would have done with the studies of the last days."""
    since = now - dt.timedelta(days=days)
    counts: Counter[str] = Counter()
    changed: list[Changed] = []
    total = 0
    for study in _received_since(session, since):
        route = rules.route(study_facts.of(study, study.series), book.routing)
        counts[route.rule or NO_RULE] += 1
        total += 1
        then = (study.rule, study.packs)
        if study.revision and then != (route.rule, route.packs):
            changed.append(_changed(study, route))
    changed.reverse()
    outcomes = [(r.name, ", ".join(r.all_packs) or f"skip: {r.skip}") for r in book.routing.rules]
    outcomes.append((NO_RULE, f"skip: {book.routing.no_match}"))
    return History(
        since=since,
        studies=total,
        counts=tuple((name, outcome, counts[name]) for name, outcome in outcomes),
        changed=tuple(changed[:MAX_CHANGED]),
        changed_count=len(changed),
    )


def _received_since(session: Session, since: dt.datetime) -> Iterator[Study]:
    query = (
        sa.select(Study)
        .where(Study.last_instance_at >= since)
        .order_by(Study.last_instance_at)
        .options(selectinload(Study.series))
        .execution_options(yield_per=500)
    )
    yield from session.execute(query).scalars()


def _changed(study: Study, route: rules.Route) -> Changed:
    return Changed(
        study_id=study.id,
        study_key=study.key,
        received=study.last_instance_at,
        description=study.description,
        then=f"{study.rule or NO_RULE}: {study.pack or 'not read'}",
        now=f"{route.rule or NO_RULE}: {', '.join(route.packs) or 'not read'}",
    )


def _given(series: Series, classes: dict[str, int]) -> GivenSeries:
    images = sum(classes.values())
    if MULTI_FRAME & classes.keys():  # the index does not count frames
        images = max(images, eligibility.MIN_SLICES)
    summary = SeriesSummary(
        modality=series.modality,
        sop_classes=frozenset(classes),
        frames=images,
        description=series.description,
    )
    return GivenSeries(series.number, summary, series.own_result)


def _parse(head: bytes) -> Any:
    from pydicom import dcmread

    try:
        dataset = dcmread(io.BytesIO(head), stop_before_pixels=True, specific_tags=TAGS.split())
    except Exception as error:  # a damaged header surfaces as any error, from any depth
        raise NotTestable(NO_DICOM) from error
    if "SOPClassUID" not in dataset:
        raise NotTestable(NO_DICOM)
    return dataset


def _text(dataset: Any, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "").strip()
    except (ValueError, TypeError):  # a value that is not what its VR says
        return ""
