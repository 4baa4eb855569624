"""Attribute matching of C-FIND keys against a dataset (PS3.4 C.2.2.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicom_nodes import errors

#: A combined date and time range: the date key and the time key of one moment (C.2.2.2.5.1).
MOMENTS = {BaseTag(0x00400002): BaseTag(0x00400003)}
NO_WILDCARDS = frozenset({"DA", "TM", "DT", "UI", "SQ", "IS", "DS"})
NOT_KEYS = frozenset({BaseTag(0x00080005), BaseTag(0x00080201)})
"""Specific Character Set and Timezone Offset say how to read the keys; they are no keys."""
EARLIEST = {"DA": "00000000", "TM": "000000"}
LATEST = {"DA": "99999999", "TM": "235959"}


class MatchingError(errors.NodeError):
    """A key of the query breaks the rules of its value representation."""

    permanent = True


def matches(keys: Dataset, candidate: Dataset) -> bool:
    """Whether the candidate matches every key; keys the candidate does not have are not matched.

    Raises:
        MatchingError: a date or time key is neither a value nor a range, or a sequence key has
            more than one item.
    """
    combined = _combined_moments(keys)
    for key in keys:
        if key.tag in combined or key.tag in NOT_KEYS or key.tag not in candidate:
            continue
        if not _matches_element(key, candidate[key.tag]):
            return False
    return all(
        _matches_moment(keys, candidate, date, MOMENTS[date]) for date in combined & MOMENTS.keys()
    )


def is_universal(key: DataElement) -> bool:
    """Whether a key matches everything: zero length, or only asterisks (C.2.2.2.3)."""
    if key.VR == "SQ":
        return all(is_universal(inner) for item in key.value for inner in item)
    text = str(key.value if key.value is not None else "").strip()
    return not text or (key.VR not in NO_WILDCARDS and not text.strip("*"))


def returned(keys: Dataset, candidate: Dataset) -> Dataset:
    """What the query asked for, as far as it is supported; unsupported keys are left out.

    A sequence key without item, or with an empty one, asks for the whole item (C.2.2.2.6).
    """
    answer = Dataset()
    for element in candidate:
        if element.tag not in keys:
            continue
        inner = keys[element.tag].value if element.VR == "SQ" else ()
        if inner and len(inner[0]):
            answer.add_new(element.tag, "SQ", [returned(inner[0], i) for i in element.value])
        else:
            answer.add(element)
    return answer


def _matches_element(key: DataElement, element: DataElement) -> bool:
    if is_universal(key):
        return True
    if key.VR == "SQ":
        if len(key.value) != 1:
            raise MatchingError(f"sequence key {key.keyword or key.tag} must have exactly one item")
        return any(matches(key.value[0], item) for item in element.value)
    values = _texts(element)
    if key.VR in EARLIEST:
        return any(_in_range(key.VR, str(key.value), value) for value in values)
    if key.VR == "UI":
        return bool(set(_texts(key)) & set(values))  # list of UID matching (C.2.2.2.2)
    if key.VR == "PN":
        return any(_person_matches(str(key.value), value) for value in values)
    wanted = _pattern(str(key.value), key.VR not in NO_WILDCARDS)
    return any(wanted.fullmatch(value.strip()) for value in values)


def _texts(element: DataElement) -> list[str]:
    value = element.value
    if value is None or value == "":
        return []
    many = isinstance(value, Sequence) and not isinstance(value, str)
    return [str(one) for one in (value if many else [value])]


def _pattern(text: str, wildcards: bool) -> re.Pattern[str]:
    if not wildcards:
        return re.compile(re.escape(text.strip()))
    translated = {"*": ".*", "?": "."}
    parts = (translated.get(character, re.escape(character)) for character in text.strip())
    return re.compile("".join(parts), re.DOTALL)


def _person_matches(key: str, value: str) -> bool:
    """Without regard to case (allowed for PN); any component group may match any other.

    Empty trailing components count for nothing: ``Doe^John`` is ``DOE^JOHN^^^``.
    """
    groups = [_normal_name(group) for group in value.split("=")]
    wanted = [_pattern(_normal_name(group), True) for group in key.split("=") if group.strip("^ ")]
    return any(pattern.fullmatch(group) for pattern in wanted for group in groups if group)


def _normal_name(group: str) -> str:
    parts = [part.strip() for part in group.casefold().split("^")]
    return "^".join(parts).rstrip("^")


def _in_range(vr: str, key: str, value: str) -> bool:
    low, high = _bounds(vr, key)
    return low <= _padded(vr, value, EARLIEST) <= high


def _bounds(vr: str, key: str) -> tuple[str, str]:
    """Inclusive bounds of a single value or a range ``a-b``, ``a-``, ``-b``."""
    text = key.strip()
    if not re.fullmatch(r"[0-9:.]*-?[0-9:.]*", text):
        raise MatchingError(
            f"a {vr} key is a value or a range a-b; got {len(text)} other characters"
        )
    first, dash, last = text.partition("-")
    if not dash:
        last = first
    low = _padded(vr, first, EARLIEST) if first else EARLIEST[vr]
    high = _padded(vr, last, LATEST) if last else LATEST[vr]
    return low, high


def _padded(vr: str, value: str, filling: dict[str, str]) -> str:
    """A value of full length: ``08`` as a time means 08:00:00 to 08:59:59. Fractions are cut."""
    digits = re.sub(r"[^0-9]", "", value.partition(".")[0] if vr == "TM" else value)
    full = filling[vr]
    return (digits + full[len(digits) :])[: len(full)]


def _combined_moments(keys: Dataset) -> set[BaseTag]:
    """Date and time tags whose keys are both ranges: they mean one span, not two filters."""
    combined: set[BaseTag] = set()
    for date, time in MOMENTS.items():
        pair = [str(keys[tag].value or "") if tag in keys else "" for tag in (date, time)]
        if all("-" in text for text in pair):
            combined |= {date, time}
    return combined


def _matches_moment(keys: Dataset, candidate: Dataset, date: BaseTag, time: BaseTag) -> bool:
    if date not in candidate or time not in candidate:
        return True
    low_date, high_date = _bounds("DA", str(keys[date].value))
    low_time, high_time = _bounds("TM", str(keys[time].value))
    dates, times = _texts(candidate[date]), _texts(candidate[time])
    moment = _padded("DA", "".join(dates), EARLIEST) + _padded("TM", "".join(times), EARLIEST)
    return low_date + low_time <= moment <= high_date + high_time
