"""Copy who and which study a result belongs to, byte for byte, from a source image.

A PACS compares these attributes with what it holds: decoding and encoding a name again, in another
character set or by a stricter parser, would make the result look like another patient's.
"""

from __future__ import annotations

import copy

import pydicom
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.uid import UID

from agent.errors import ComposeError


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PATIENT = _words(
    "PatientName PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence TypeOfPatientID "
    "PatientBirthDate PatientBirthTime PatientSex OtherPatientIDsSequence OtherPatientIDs "
    "OtherPatientNames EthnicGroup PatientComments PatientSpeciesDescription "
    "PatientSpeciesCodeSequence PatientBreedDescription PatientBreedCodeSequence "
    "BreedRegistrationSequence ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization "
    "PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence "
    "QualityControlSubject ReferencedPatientSequence"
)
"""Patient module, PS3.3 C.7.1.1."""
STUDY = _words(
    "StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber "
    "IssuerOfAccessionNumberSequence ReferringPhysicianName StudyDescription "
    "ReferringPhysicianIdentificationSequence PhysiciansOfRecord NameOfPhysiciansReadingStudy "
    "RequestingService ProcedureCodeSequence ReasonForPerformedProcedureCodeSequence "
    "ReferencedStudySequence"
)
"""General Study module, PS3.3 C.7.2.1."""
PATIENT_STUDY = _words(
    "AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge PatientSize "
    "PatientWeight MedicalAlerts Allergies PregnancyStatus PatientSexNeutered Occupation "
    "AdmissionID IssuerOfAdmissionIDSequence ServiceEpisodeID ServiceEpisodeDescription"
)
"""Patient Study module, PS3.3 C.7.2.2."""
TRIAL = _words(
    "ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName "
    "ClinicalTrialSiteID ClinicalTrialSiteName ClinicalTrialSubjectID "
    "ClinicalTrialSubjectReadingID ClinicalTrialTimePointID ClinicalTrialTimePointDescription"
)
CREATOR = "AI^worklist-agent"
"""ContentCreatorName: a person name, though no person made the content."""
IDENTITY = (*PATIENT, *STUDY, *PATIENT_STUDY, *TRIAL)
TYPE_2 = _words(
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID "
    "AccessionNumber ReferringPhysicianName"
)
"""Required, may be empty: supplied empty where a source lacks them."""


def neutral(template: Dataset) -> Dataset:
    """A header highdicom accepts whatever the source says; the true values are copied later.

    highdicom refuses absent and unusual values (a sex of "U", a birth date of "1960") that
    scanners do send.
    """
    ds = Dataset()
    for keyword in TYPE_2:
        setattr(ds, keyword, "")
    ds.StudyInstanceUID = valid_uid(template, "StudyInstanceUID")
    return ds


def valid_uid(template: Dataset, keyword: str) -> str:
    """A UID of the source, refused when a receiver could not match it.

    Raises:
        ComposeError: absent, or not a UID by PS3.5 chapter 9.
    """
    value = _stored_text(template, keyword)
    if not UID(value, validation_mode=pydicom.config.IGNORE).is_valid:
        raise ComposeError(
            f"results cannot be attached to the study: {keyword} of the source is missing or not "
            "a valid UID; correct it in the PACS and send the study again"
        )
    return value


def _stored_text(template: Dataset, keyword: str) -> str:
    """A value as stored; reading it through pydicom would quote an invalid one in a warning."""
    tag = tag_for_keyword(keyword)
    element = template.get_item(tag) if tag is not None and tag in template else None
    value = element.value if element is not None else None
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\0 ")


def copy_identity(template: Dataset, target: Dataset) -> None:
    """Make patient and study of `target` those of `template`, unread; keep the character set."""
    for keyword in IDENTITY:
        tag = tag_for_keyword(keyword)
        if tag is None:  # a keyword that this pydicom does not know yet
            continue
        if tag in template:
            target[tag] = _verbatim(template, tag)
        elif keyword in TYPE_2:
            setattr(target, keyword, None)
        elif tag in target:
            del target[tag]
    charset = template.get("SpecificCharacterSet")
    if charset:
        target.SpecificCharacterSet = charset
    elif "SpecificCharacterSet" in target:
        del target.SpecificCharacterSet
    _write_as_read(target)


def _write_as_read(target: Dataset) -> None:
    """Tell pydicom that raw elements are in the encoding they will be written in."""
    correct_ambiguous_vr(target, is_little_endian=True)
    charset = target.get("SpecificCharacterSet")
    target.set_original_encoding(False, True, convert_encodings(charset))


def _verbatim(template: Dataset, tag: int) -> DataElement | RawDataElement:
    element = template.get_item(tag)
    vr = element.VR if element is not None and element.VR not in (None, "UN") else None
    vr = vr or dictionary_VR(tag)
    if not isinstance(element, RawDataElement) or vr == "SQ" or element.value is None:
        parsed = copy.deepcopy(template[tag])
        if parsed.VR == "SQ":
            for item in parsed.value:
                _decode(item)
        return parsed
    value = element.value
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    return element._replace(
        VR=vr, value=value, length=len(value), is_implicit_VR=False, is_little_endian=True
    )


def _decode(item: Dataset) -> None:
    """Read nested elements while the character set they were written in is still known."""
    for _ in item.iterall():
        pass
