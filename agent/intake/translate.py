"""From a received header to the columns of the record: cut to size, never invented."""

from __future__ import annotations

import datetime as dt

from db.queries.received import Received, SeriesValues, StudyValues
from dicom_nodes import headers
from dicom_nodes.headers import Header

_MAX_TEXT = 1024
"""The longest text VR we record (LO) holds 64 characters; senders write more at times."""


def to_record(
    header: Header,
    *,
    path: str,
    size_bytes: int,
    transfer_syntax_uid: str,
    calling_ae: str,
    received_at: dt.datetime,
    own_result: bool,
) -> Received:
    """Return the row values of one instance that lies under `path`."""
    return Received(
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        sop_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        path=path,
        size_bytes=size_bytes,
        received_at=received_at,
        calling_ae=calling_ae[:64],
        number=headers.whole_number(header.instance_number),
        own_result=own_result,
        study=StudyValues(
            patient_id=_text(header.patient_id),
            issuer_of_patient_id=_text(header.issuer_of_patient_id),
            patient_name=_text(header.patient_name),
            patient_birth_date=header.patient_birth_date[:16],
            patient_sex=header.patient_sex[:16],
            accession_number=_text(header.accession_number),
            study_date=header.study_date[:16],
            study_time=header.study_time[:32],
            description=_text(header.study_description),
            body_part=_text(header.body_part),
            station_name=_text(header.station_name),
            institution=_text(header.institution),
            patient_location=_text(header.patient_location),
            ordered_priority=header.ordered_priority[:16],
        ),
        series=SeriesValues(
            modality=header.modality[:16],
            description=_text(header.series_description),
            protocol=_text(header.protocol),
            body_part=_text(header.body_part),
            number=headers.whole_number(header.series_number),
        ),
    )


def _text(value: str) -> str:
    return value[:_MAX_TEXT]
