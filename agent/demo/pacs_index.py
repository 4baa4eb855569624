"""What the embedded PACS knows of its files, and how queries match against it (PS3.4 C.2)."""

from __future__ import annotations

import fnmatch
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

LEVELS = {
    "STUDY": (
        "StudyInstanceUID",
        "StudyID",
        "StudyDate",
        "StudyTime",
        "StudyDescription",
        "AccessionNumber",
        "PatientID",
        "IssuerOfPatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "ReferringPhysicianName",
    ),
    "SERIES": ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality"),
    "IMAGE": ("SOPInstanceUID", "SOPClassUID", "InstanceNumber"),
}
_KEYS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_RANGE = re.compile(r"(\d{0,14})-(\d{0,14})")


@dataclass(frozen=True)
class Held:
    """One stored instance.

    Attributes:
        tags: keyword -> value as text, of the keywords in `LEVELS`.
    """

    path: Path
    transfer_syntax_uid: str
    tags: dict[str, str]

    @classmethod
    def from_dataset(cls, ds: Dataset, path: Path, transfer_syntax_uid: str) -> Held:
        """Take the tags of a dataset; AttributeError when a UID is missing."""
        for keyword in (*_KEYS.values(), "SOPClassUID"):
            if not getattr(ds, keyword):
                raise AttributeError(f"{keyword} is empty")
        keywords = [keyword for level in LEVELS.values() for keyword in level]
        tags = {keyword: str(ds[keyword].value or "") for keyword in keywords if keyword in ds}
        return cls(path, transfer_syntax_uid, tags)

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID."""
        return self.tags["SOPInstanceUID"]

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID."""
        return self.tags["SOPClassUID"]

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return self.tags["StudyInstanceUID"]

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return self.tags["SeriesInstanceUID"]

    @property
    def modality(self) -> str:
        """Modality of its series."""
        return self.tags.get("Modality", "")


class PacsIndex:
    """Instances by SOP UID; safe to use from several association threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_uid: dict[str, Held] = {}

    def add(self, held: Held) -> None:
        """Index an instance; a known SOP UID changes nothing."""
        with self._lock:
            self._by_uid.setdefault(held.sop_instance_uid, held)

    def objects(self, study_uid: str | None = None) -> list[Held]:
        """Instances of one study, or all."""
        with self._lock:
            held = sorted(self._by_uid.values(), key=lambda h: h.sop_instance_uid)
        return [h for h in held if study_uid in {None, h.study_uid}]

    def select(self, identifier: Dataset) -> list[Held]:
        """Instances a C-MOVE identifier names by its UIDs."""
        groups = self._matches(identifier)
        return [held for group in groups for held in group]

    def find(self, identifier: Dataset) -> list[Dataset]:
        """Answers to a C-FIND identifier: its keys filled, one dataset per match.

        Raises:
            ValueError: the query level is none we know.
        """
        return [_answer(identifier, group, self) for group in self._matches(identifier)]

    def _matches(self, identifier: Dataset) -> list[list[Held]]:
        level = str(identifier.QueryRetrieveLevel)
        if level not in LEVELS:
            raise ValueError(f"query level {level}")
        groups: dict[str, list[Held]] = {}
        for held in self.objects():
            groups.setdefault(held.tags[_KEYS[level]], []).append(held)
        return [group for group in groups.values() if _matches(identifier, group, self)]


def _matches(identifier: Dataset, group: Sequence[Held], index: PacsIndex) -> bool:
    for element in identifier:
        wanted = _text(element.value)
        if not wanted or element.keyword == "QueryRetrieveLevel":
            continue
        if element.keyword == "ModalitiesInStudy":
            modalities = _modalities(group, index)
            if not any(_value_matches(wanted, modality) for modality in modalities):
                return False
        elif any(element.keyword in level for level in LEVELS.values()) and not _value_matches(
            wanted, group[0].tags.get(element.keyword, "")
        ):
            return False
    return True


def _value_matches(wanted: str, value: str) -> bool:
    """Single value, list of values, range of dates or times, or wild card (PS3.4 C.2.2.2)."""
    if "\\" in wanted:
        return value in wanted.split("\\")
    bounds = _RANGE.fullmatch(wanted)
    if bounds and value.isdigit():
        low, high = bounds.groups()
        return (not low or value >= low) and (not high or value <= high)
    if "*" in wanted or "?" in wanted:
        return fnmatch.fnmatchcase(value, wanted.replace("[", "[[]"))
    return value == wanted


def _answer(identifier: Dataset, group: Sequence[Held], index: PacsIndex) -> Dataset:
    answer = Dataset()
    answer.SpecificCharacterSet = "ISO_IR 192"
    answer.QueryRetrieveLevel = identifier.QueryRetrieveLevel
    for element in identifier:
        keyword = element.keyword
        if keyword in _COMPUTED:
            setattr(answer, keyword, _COMPUTED[keyword](group, index))
        elif keyword and keyword not in {"QueryRetrieveLevel", "SpecificCharacterSet"}:
            value = group[0].tags.get(keyword)
            setattr(answer, keyword, value or (None if element.VR == "SQ" else ""))
    return answer


def _study(group: Sequence[Held], index: PacsIndex) -> list[Held]:
    return index.objects(group[0].study_uid)


def _series(group: Sequence[Held], index: PacsIndex) -> list[Held]:
    return [held for held in _study(group, index) if held.series_uid == group[0].series_uid]


def _modalities(group: Sequence[Held], index: PacsIndex) -> list[str]:
    return sorted({held.modality for held in _study(group, index)})


_COMPUTED: dict[str, Callable[[Sequence[Held], PacsIndex], object]] = {
    "ModalitiesInStudy": _modalities,
    "SOPClassesInStudy": lambda g, i: sorted({h.sop_class_uid for h in _study(g, i)}),
    "NumberOfStudyRelatedSeries": lambda g, i: len({h.series_uid for h in _study(g, i)}),
    "NumberOfStudyRelatedInstances": lambda g, i: len(_study(g, i)),
    "NumberOfSeriesRelatedInstances": lambda g, i: len(_series(g, i)),
}


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return "\\".join(str(v) for v in value)  # type: ignore[attr-defined]
    return str(value or "")
