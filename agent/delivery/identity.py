"""Is the study still the one that was analysed? Asked before every push; answers hold no values.

The patient ID must agree. Issuer and accession must agree where both sides state one: archives fill
in what modalities leave out, and that is no change of identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from agent.errors import DeliveryError, IdentityChanged
from dicom_nodes.answers import HeldObjects, HeldStudy

_KEYWORDS = (
    "SOPInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "AccessionNumber",
)


@dataclass(frozen=True)
class Identity:
    """Whose study it is, padding removed."""

    study_uid: str
    patient_id: str
    issuer_of_patient_id: str
    accession_number: str


def of_file(path: Path, sop_uid: str) -> Identity:
    """The identity a result object carries.

    Raises:
        DeliveryError: permanent; the file is gone, unreadable, or another object.
    """
    try:
        ds = dcmread(path, stop_before_pixels=True, specific_tags=list(_KEYWORDS))
    except (OSError, InvalidDicomError) as error:
        raise DeliveryError(
            f"result file cannot be read ({type(error).__name__}); restore the results directory "
            "or compose again: worklist-agent studies retry",
            permanent=True,
        ) from error
    found, study_uid, *rest = (clean(ds.get(keyword)) for keyword in _KEYWORDS)
    if found != sop_uid:
        raise DeliveryError(
            "result file holds another object than its record says; "
            "restore the results directory or compose again: worklist-agent studies retry",
            permanent=True,
        )
    return Identity(study_uid, *rest)


def check_record(result: Identity, record: Identity) -> None:
    """Compare a result with the study as we know it now.

    Raises:
        IdentityChanged: names what differs.
    """
    differing = _differing(result, record)
    if result.study_uid != record.study_uid:
        differing = ["Study Instance UID", *differing]
    if differing:
        raise IdentityChanged(
            f"{', '.join(differing)} of the study changed since it was analysed; nothing was "
            "pushed; have it analysed again: worklist-agent studies retry --reanalyse"
        )


def check_held(result: Identity, held: HeldStudy, destination: str) -> None:
    """Compare a result with the study as the destination holds it; what it did not say is passed.

    Raises:
        IdentityChanged: names what differs.
    """
    differing = _differing(result, _theirs(result, held))
    if differing:
        raise IdentityChanged(
            f"{destination} holds the study under another {' and '.join(differing)}; nothing was "
            "pushed; send the corrected study again, or retry when the archive is right"
        )


def is_there(result: Identity, sop_uid: str, held: HeldObjects, destination: str) -> bool:
    """Whether the destination holds the object, under the identity it was sent with.

    Raises:
        IdentityChanged: it holds it as another patient's, accession's or study's; names what.
    """
    if sop_uid not in held.instances or held.study is None:
        return False
    differing = _differing(result, _theirs(result, held.study))
    if held.instances[sop_uid] not in {None, result.study_uid}:
        differing = ["Study Instance UID", *differing]
    if differing:
        raise IdentityChanged(
            f"{destination} holds the object under another {' and '.join(differing)} than it was "
            "sent with; look at the merge or correction there, then have the study analysed "
            "again: worklist-agent studies retry --reanalyse"
        )
    return True


def clean(value: object) -> str:
    """Text of an element without padding; absent is empty."""
    return "" if value is None else str(value).strip(" \0")


def _theirs(result: Identity, held: HeldStudy) -> Identity:
    return Identity(
        study_uid=result.study_uid,
        patient_id=result.patient_id if held.patient_id is None else clean(held.patient_id),
        issuer_of_patient_id=clean(held.issuer_of_patient_id),
        accession_number=clean(held.accession_number),
    )


def _differing(ours: Identity, theirs: Identity) -> list[str]:
    stated_both = {
        "issuer of patient ID": (ours.issuer_of_patient_id, theirs.issuer_of_patient_id),
        "accession number": (ours.accession_number, theirs.accession_number),
    }
    differing = ["patient ID"] if ours.patient_id != theirs.patient_id else []
    return differing + [name for name, (a, b) in stated_both.items() if a and b and a != b]
