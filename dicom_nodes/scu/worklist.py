"""C-FIND, modality worklist: the orders a RIS holds for an accession number or a patient."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

from dicom_nodes import answers
from dicom_nodes.answers import text
from dicom_nodes.node import Node
from dicom_nodes.scu.association import associate, broken, where

_PENDING = frozenset({0xFF00, 0xFF01})
_CONTEXT = build_context(ModalityWorklistInformationFind)


@dataclass(frozen=True)
class ScheduledProcedure:
    """One worklist item (PS3.4 K.6); empty = the RIS does not say."""

    accession_number: str
    patient_id: str
    issuer_of_patient_id: str
    study_uid: str
    procedure_id: str
    placer_order: str
    filler_order: str
    procedure: str
    indication: str
    priority: str
    location: str


def find(
    node: Node, *, accession_number: str = "", patient_id: str = ""
) -> list[ScheduledProcedure]:
    """Ask for the procedures of an accession number or a patient; one of them must be given.

    Raises:
        ValueError: neither is given: that would ask for the whole worklist.
        NodeError: unavailable, refused, or a failure status.
    """
    if not accession_number and not patient_id:
        raise ValueError("a worklist is asked for an accession number or a patient")
    found = []
    with associate(node, [_CONTEXT]) as association:
        query = _query(accession_number, patient_id)
        for status, item in association.send_c_find(query, ModalityWorklistInformationFind):
            if "Status" not in status:
                raise broken(node)
            value = int(status.Status)
            settled = answers.SUCCESS if value in _PENDING else value
            error = answers.error_of(settled, f"{where(node)}: worklist C-FIND failed")
            if error:
                raise error
            if item is not None:
                found.append(_procedure(item))
    return found


def _query(accession_number: str, patient_id: str) -> Dataset:
    query = Dataset()
    query.AccessionNumber, query.PatientID = accession_number, patient_id
    for keyword in (
        "PatientName",
        "IssuerOfPatientID",
        "StudyInstanceUID",
        "RequestedProcedureID",
        "RequestedProcedureDescription",
        "RequestedProcedurePriority",
        "ReasonForTheRequestedProcedure",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
        "CurrentPatientLocation",
        "RequestingService",
    ):
        setattr(query, keyword, "")
    query.RequestedProcedureCodeSequence = []
    step = Dataset()
    step.Modality = step.ScheduledProcedureStepStartDate = step.ScheduledStationAETitle = ""
    query.ScheduledProcedureStepSequence = [step]
    return query


def _procedure(item: Dataset) -> ScheduledProcedure:
    def get(keyword: str) -> str:
        return text(item.get(keyword)) or ""

    return ScheduledProcedure(
        accession_number=get("AccessionNumber"),
        patient_id=get("PatientID"),
        issuer_of_patient_id=get("IssuerOfPatientID"),
        study_uid=get("StudyInstanceUID"),
        procedure_id=get("RequestedProcedureID"),
        placer_order=get("PlacerOrderNumberImagingServiceRequest"),
        filler_order=get("FillerOrderNumberImagingServiceRequest"),
        procedure=get("RequestedProcedureDescription"),
        indication=get("ReasonForTheRequestedProcedure"),
        priority=get("RequestedProcedurePriority"),
        location=get("CurrentPatientLocation"),
    )
