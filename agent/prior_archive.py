"""An archive that is asked for a patient's earlier studies, over DIMSE or DICOMweb."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from agent.delivery.channels.dicom import tls_context
from agent.delivery.channels.dicomweb import DicomWebChannel
from agent.errors import AgentError
from agent.settings import Destination
from dicom_nodes.answers import text
from dicom_nodes.node import Node
from dicom_nodes.scu import find, get
from dicom_nodes.web import qido, wado
from dicom_nodes.web.peer import DicomWebPeer

MR = "MR"
SOP_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
#: What C-FIND and QIDO would take for a pattern, or for several values.
_PATTERN = frozenset("*?\\")


class PriorLeftOut(AgentError):
    """An earlier study is not compared with; says why."""


Take = Callable[[bytes], None]


class Archive(Protocol):
    """Who holds earlier studies."""

    def studies(self, patient_id: str, until: str) -> list[Dataset]:
        """Studies of a patient up to a day."""

    def series(self, study_uid: str) -> list[Dataset]:
        """Series of a study."""

    def fetch(self, study_uid: str, series_uid: str, take: Take) -> None:
        """Hand over the instances of a series as Part-10 files."""


@dataclass(frozen=True)
class DimseArchive:
    """Asked by C-FIND and C-GET: what C-MOVE brings would enter our own worklist."""

    node: Node

    def studies(self, patient_id: str, until: str) -> list[Dataset]:
        """C-FIND at study level."""
        wanted = Dataset()
        wanted.IssuerOfPatientID = ""
        return find.find_studies(
            self.node, wanted, PatientID=patient_id, StudyDate=f"-{until}", ModalitiesInStudy=MR
        )

    def series(self, study_uid: str) -> list[Dataset]:
        """C-FIND at series level."""
        wanted = Dataset()
        wanted.QueryRetrieveLevel = "SERIES"
        wanted.StudyInstanceUID = study_uid
        wanted.SeriesInstanceUID = ""
        wanted.Modality = ""
        return find.find(self.node, wanted)

    def fetch(self, study_uid: str, series_uid: str, take: Take) -> None:
        """C-GET of a series."""
        get.get_series(self.node, study_uid, series_uid, SOP_CLASSES, take)


@dataclass(frozen=True)
class WebArchive:
    """Asked by QIDO-RS and WADO-RS."""

    peer: DicomWebPeer

    def studies(self, patient_id: str, until: str) -> list[Dataset]:
        """QIDO-RS for studies."""
        return qido.find_studies(
            self.peer,
            fields=("IssuerOfPatientID",),
            PatientID=patient_id,
            StudyDate=f"-{until}",
            ModalitiesInStudy=MR,
        )

    def series(self, study_uid: str) -> list[Dataset]:
        """QIDO-RS for series."""
        return qido.find_series(self.peer, study_uid)

    def fetch(self, study_uid: str, series_uid: str, take: Take) -> None:
        """WADO-RS of a series."""
        for dataset in wado.retrieve(self.peer, study_uid, series_uid):
            written = io.BytesIO()
            dataset.save_as(written)
            take(written.getvalue())


def of(destination: Destination, calling_ae: str, timeout_s: float) -> Archive:
    """The archive behind a destination; no single answer may take longer than `timeout_s`."""
    patience = min(destination.timeout_s, timeout_s)
    if destination.kind == "dicomweb":
        return WebArchive(replace(DicomWebChannel.of(destination).peer, timeout_s=patience))
    return DimseArchive(
        Node(
            ae_title=destination.ae_title or "",
            host=destination.host,
            port=destination.port,
            calling_ae=calling_ae,
            tls=tls_context(destination.tls),
            timeout_s=patience,
        )
    )


@dataclass(frozen=True)
class Wanted:
    """The study that is read now: earlier ones of the same patient are looked for."""

    patient_id: str
    issuer_of_patient_id: str
    study_uid: str
    study_date: str

    @property
    def can_be_asked_for(self) -> bool:
        """A patient without an id, and a study without a date, have no earlier studies."""
        pattern = _PATTERN.intersection(self.patient_id)
        return bool(self.patient_id and self.study_date) and not pattern


@dataclass(frozen=True)
class Prior:
    """The earlier study."""

    study_uid: str
    date: str


def newest(found: Sequence[Dataset], wanted: Wanted) -> Prior | None:
    """The newest MR study before the day of the one at hand; None = there is none.

    An issuer that the archive does not say is left to the instances themselves.

    Raises:
        PriorLeftOut: what the archive answered is another patient's.
    """
    earlier = [match for match in found if _is_earlier(match, wanted)]
    own = [match for match in earlier if _is_of(match, wanted)]
    if earlier and not own:
        raise PriorLeftOut(
            "the archive answered with another patient id or issuer; nothing of it is used: "
            "check that it matches patient ids exactly"
        )
    if not own:
        return None
    best = max(own, key=lambda match: (text(match.StudyDate), text(match.get("StudyTime")) or ""))
    return Prior(text(best.StudyInstanceUID) or "", text(best.StudyDate) or "")


def _is_earlier(match: Dataset, wanted: Wanted) -> bool:
    date, uid = text(match.get("StudyDate")) or "", text(match.get("StudyInstanceUID"))
    modalities = match.get("ModalitiesInStudy") or MR
    several = [modalities] if isinstance(modalities, str) else modalities
    dated = len(date) == 8 and date < wanted.study_date
    return bool(uid) and uid != wanted.study_uid and dated and MR in several


def _is_of(match: Dataset, wanted: Wanted) -> bool:
    issuer = text(match.get("IssuerOfPatientID")) or wanted.issuer_of_patient_id
    same_id = text(match.get("PatientID")) == wanted.patient_id
    return same_id and issuer == wanted.issuer_of_patient_id
