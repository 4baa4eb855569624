"""Takes identifiers out of free text before it leaves the process that knows the patient.

What is sent is built from parts that hold no identifiers; only sentences and the indication are
free text. This is the second lock for those two, and it would rather take too much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MARK = "[removed]"
#: Shorter parts of known identifiers occur in ordinary words; a number of a patient rarely does.
SHORTEST_NAME = 3

_MONTH = r"(?:jan|feb|m[aä]r|apr|ma[yi]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]*"
_ONE = r"(?:(?:van|von|de|der|den|la|le|al|el|bin)[ -])*[A-ZÀ-ÖØ-Þ][\w'\u2019-]+"
_NAME = rf"{_ONE}(?:[ \t]+{_ONE})*"
_LABEL = "|".join(
    (
        r"mrn|ssn|nhs|dob|born(?: on)?|tel(?:ephone)?|phone|fax|mobile",
        r"pat(?:ient)?[ -]?(?:id|no|nr|number)|insurance[ -]?(?:no|number)",
        r"acc(?:ession)?\.?(?:[ -]?(?:no|nr|number))?|case[ -]?(?:no|nr|number)",
    )
)
_PATTERNS = tuple(
    re.compile(pattern, flags)
    for pattern, flags in (
        # e-mail addresses and web addresses
        (r"\S+@\S+\.\S+", 0),
        (r"\bhttps?://\S+", re.IGNORECASE),
        # DICOM UIDs, names in DICOM's form
        (r"\b\d+(?:\.\d+){4,}\b", 0),
        (r"\b[\w'\u2019-]+(?:\^[\w'\u2019-]*)+", 0),
        # dates: 2024-01-31, 31.01.2024, 1/31/24, 31 Jan 2024, January 31, 2024
        (r"\b\d{4}[-./]\d{1,2}[-./]\d{1,2}\b", 0),
        (r"\b\d{1,2}[-./]\d{1,2}[-./](?:\d{4}|\d{2})\b", 0),
        (
            rf"\b\d{{1,2}}(?:st|nd|rd|th|\.)?[ -]{_MONTH}\b[ ,-]*(?:\d{{4}}|\d{{2}}\b)?",
            re.IGNORECASE,
        ),
        (rf"\b{_MONTH}\.?[ ]\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?[ ]\d{{4}})?", re.IGNORECASE),
        (rf"\b{_MONTH}\.?[ ]\d{{4}}\b", re.IGNORECASE),
        # a label and what it labels
        (rf"\b(?:{_LABEL})\b\.?[ ]*[:#=]?[ ]*[\w./+()-]*\d[\w./+()-]*", re.IGNORECASE),
        (rf"\b(?i:name|patient|referr(?:er|ed by|ing)|physician|doctor)[ ]*[:=][ ]*{_NAME}", 0),
        (rf"\b(?:Dr|Prof|Mr|Mrs|Ms|Mx|Herr|Frau|Mme|Sr|Sra)\.?[ ]+(?:med\.?[ ]+)?{_NAME}", 0),
        # telephone numbers, and any other long or mixed number
        (r"(?<![\w.])\+?\(?\d{2,4}\)?(?:[ /.-]\d{2,9}){2,}\b(?![ ]*(?:mm|cm|ml|HU)\b)", 0),
        (r"\b\d{5,}\b", 0),
        (r"\b(?=\w*\d\w*\d\w*\d)(?=\w*[A-Za-z])\w{6,}\b", 0),
    )
)


def scrub(text: str, known: Iterable[str] = ()) -> str:
    """The text on one line, with marks in place of what identifies a person.

    Args:
        text: findings or an indication.
        known: this patient's identifiers, as the record has them (``Doe^Jane``, ``4711``).
    """
    cleaned = " ".join(text.split())
    for pattern in _PATTERNS:
        cleaned = pattern.sub(MARK, cleaned)
    for part in sorted(_parts(known), key=len, reverse=True):
        cleaned = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", MARK, cleaned, flags=re.IGNORECASE)
    return cleaned


def _parts(known: Iterable[str]) -> set[str]:
    """Whole identifiers, and the single names within them."""
    whole = {one.strip() for one in known if one and one.strip()}
    single = {part for one in whole for part in re.split(r"[\^=,\s]+", one)}
    return {one for one in whole | single if len(one) >= SHORTEST_NAME}
