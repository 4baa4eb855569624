"""Training, validation and prospective sets: by date and patient, so that nothing leaks.

The prospective set holds studies from a date on, as in both papers, and no patient of it has taken
part in training. Everything else is divided by patient.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.data.errors import DataError
from training.data.table import StudyRow


class Split(enum.StrEnum):
    """Which set a study belongs to."""

    TRAIN = "train"
    VALIDATION = "validation"
    PROSPECTIVE = "prospective"
    #: in no set: a later study of a patient who took part in training
    LEFT_OUT = "left_out"


@dataclass(frozen=True)
class SplitRules:
    """How to divide.

    Attributes:
        prospective_from: studies of this day or later are prospective; None = no such set.
        validation_share: of the patients before that day.
        seed: changes which patients validate.
    """

    prospective_from: dt.date | None = None
    validation_share: float = 0.1
    seed: int = 0


def split_studies(rows: Sequence[StudyRow], rules: SplitRules) -> dict[str, Split]:
    """The set of every study, by its identifier.

    A patient's set depends on nothing but pseudonym and seed: more studies move no one.

    Raises:
        DataError: a prospective set is asked for and a study has no date, or the table fixes a
            split by an unknown name or across a patient.
    """
    known = _patients_before(rows, rules)
    divided = {row.study: _split(row, rules, known) for row in rows}
    check(rows, divided)
    return divided


def check(rows: Sequence[StudyRow], divided: Mapping[str, Split]) -> None:
    """Refuse a division that shares a patient between sets.

    Raises:
        DataError: naming the sets; the patient's pseudonym stays out of the message.
    """
    sets: dict[str, set[Split]] = {}
    for row in rows:
        if divided[row.study] is not Split.LEFT_OUT:
            sets.setdefault(row.patient, set()).add(divided[row.study])
    shared = [found for found in sets.values() if len(found) > 1]
    if shared:
        names = ", ".join(sorted(shared[0]))
        raise DataError(
            f"{len(shared)} patients have studies in several sets ({names}): the result would "
            "flatter the model; give each patient one set"
        )


def _patients_before(rows: Sequence[StudyRow], rules: SplitRules) -> set[str]:
    if rules.prospective_from is None:
        return set()
    undated = [row for row in rows if row.date is None and not row.split]
    if undated:
        raise DataError(
            f"{len(undated)} studies have no date; a prospective set needs the date of every study"
        )
    return {row.patient for row in rows if row.date and row.date < rules.prospective_from}


def _split(row: StudyRow, rules: SplitRules, known: set[str]) -> Split:
    if row.split:
        try:
            return Split(row.split)
        except ValueError as error:
            names = ", ".join(Split)
            raise DataError(f"split {row.split!r} is unknown; it is one of {names}") from error
    if rules.prospective_from and row.date and row.date >= rules.prospective_from:
        return Split.LEFT_OUT if row.patient in known else Split.PROSPECTIVE
    share = _chance(row.patient, rules.seed)
    return Split.VALIDATION if share < rules.validation_share else Split.TRAIN


def _chance(patient: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
