"""Coded concepts of the result objects; templates and context groups are those of PS3.16.

Only concepts with a code that is known to be right are taken from SNOMED CT or DCM; what the
standard has no code for is in our private scheme, described in every object that uses it.
"""

from __future__ import annotations

import hashlib

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from agent.results.text import plain
from inference.findings import Code, Finding, Status

SCHEME = "99WLAGENT"
SCHEME_NAME = "worklist-agent local codes"


def dcm(value: str, meaning: str) -> CodedConcept:
    """A concept of the DICOM controlled terminology."""
    return CodedConcept(value, "DCM", meaning)


def sct(value: str, meaning: str) -> CodedConcept:
    """A SNOMED CT concept."""
    return CodedConcept(value, "SCT", meaning)


def local(value: str, meaning: str) -> CodedConcept:
    """A concept of our private scheme."""
    return CodedConcept(value, SCHEME, meaning)


PRESENCE = dcm("121052", "Presence of property")
PRESENT = sct("52101004", "Present")
ABSENT = sct("272519000", "Absent")
UNDETERMINED = sct("373068000", "Undetermined")
"""CID 240."""
CERTAINTY = dcm("111012", "Certainty of Finding")
VISUAL_EXPLANATION = dcm("130401", "Visual explanation")
SUMMARY = dcm("111065", "Summary of Analyses")
SUMMARY_VALUES = {
    Status.SUCCEEDED: dcm("111222", "Succeeded"),
    Status.PARTIAL: dcm("111223", "Partially Succeeded"),
    Status.FAILED: dcm("111224", "Failed"),
    Status.NOT_ATTEMPTED: dcm("111225", "Not Attempted"),
}
"""CID 6042."""
CLINICAL_FINDING = sct("404684003", "Clinical finding")
BRAIN = sct("12738006", "Brain")

PRIORITY = local("PRIORITY", "Suggested reading priority")
ORDERED_PRIORITY = local("ORDERED-PRIORITY", "Ordered priority")
PRIORITY_REASON = local("PRIORITY-REASON", "Reason for suggested priority")
PRIORITY_VOICE = local("PRIORITY-VOICE", "Opinion on the reading priority")
PRIORITY_DIFFERENCE = local("PRIORITY-DIFFER", "Opinions on the reading priority differ")
DRAFT_STATEMENT = local("DRAFT-STATEMENT", "Status of the drafted report")
DRAFT_AUTHOR = local("DRAFT-AUTHOR", "Drafted report written by")
DRAFT_EXAM = local("DRAFT-EXAM", "Drafted examination (unverified)")
DRAFT_FINDING = local("DRAFT-FINDING", "Drafted finding (unverified)")
DRAFT_LEFT_OUT = local("DRAFT-LEFT-OUT", "Drafted sentences left out")
PROVISIONAL = local("PROVISIONAL", "Provisional result")
PRIOR_COMPARISON = local("PRIOR-COMPARE", "Change since an earlier study")
EXPLANATION_FIT = local("EXPLANATION-FIT", "Method and fit of the explanation")
STATUS_REASON = local("STATUS-REASON", "Reason for incomplete analysis")
LEVELS = {
    "STAT": local("STAT", "Read immediately"),
    "HIGH": local("HIGH", "Read soon"),
    "MEDIUM": local("MEDIUM", "Read before routine"),
    "LOW": local("LOW", "Routine"),
}

PROCEDURES = {
    "CT": CodedConcept("25045-6", "LN", "CT unspecified body region"),
    "MR": CodedConcept("25056-3", "LN", "MRI unspecified body region"),
}
"""CID 100, when the order has no procedure code."""
HEAD_PROCEDURES = {
    "CT": CodedConcept("24725-4", "LN", "CT Head"),
    "MR": CodedConcept("24590-2", "LN", "MR Brain"),
}

ABNORMAL_STRUCTURE = sct("49755003", "Morphologically Abnormal Structure")
"""CID 7150."""
LESION = sct("52988006", "Lesion")
SEGMENT_TYPES = {("SCT", "1386000"): sct("50960005", "Hemorrhage")}
"""CID 7151, by the code of the finding; anything else is a lesion."""


def level(name: str) -> CodedConcept:
    """The coded priority level; a level the table does not know keeps its name."""
    return LEVELS.get(name, local(plain(name, 16), plain(name, 64)))


def concept(code: Code) -> CodedConcept:
    """A pack's code as a coded concept."""
    return CodedConcept(plain(code.value, 64), plain(code.scheme, 16), plain(code.meaning, 64))


def finding_type(finding: Finding) -> CodedConcept:
    """What the finding is; a label without a code is coded in our own scheme."""
    if finding.code.value and finding.code.scheme:
        return concept(finding.code)
    return local(label_code(finding.label), plain(finding.display, 64))


def label_code(label: str) -> str:
    """A code value (SH, 16 characters) for a label; a longer one keeps its start and a digest."""
    value = plain(label, 64)
    if value and len(value) <= 16:
        return value
    digest = hashlib.sha256(label.encode()).hexdigest()
    return f"{value[:9]}-{digest[:6]}".lstrip("-")


def site(finding: Finding) -> CodedConcept:
    """Where in the body the finding lies."""
    return concept(finding.site) if finding.site else BRAIN


def segment_type(finding: Finding) -> CodedConcept:
    """The segmented property type of a finding's mask."""
    return SEGMENT_TYPES.get((finding.code.scheme, finding.code.value), LESION)


def scheme_identification(scheme: str, organization: str) -> Dataset:
    """An item of CodingSchemeIdentificationSequence (0008,0110) for a private scheme."""
    item = Dataset()
    item.CodingSchemeDesignator = scheme
    item.CodingSchemeName = SCHEME_NAME if scheme == SCHEME else scheme
    item.CodingSchemeResponsibleOrganization = plain(organization, 1024)
    return item
