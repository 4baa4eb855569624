"""What DICOMweb serves: rows of the record and, for what it does not hold, headers of the files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import tag_for_keyword
from sqlalchemy.orm import Session, sessionmaker
from starlette.requests import Request

from agent.access.address import is_loopback
from agent.clock import Clock, utc_now
from agent.settings import PrioritySettings
from agent.settings_dicomweb import DicomWebSettings
from db.engine import reading
from db.models import Study
from db.queries import dicomweb as queries
from db.queries.dicomweb import Filters, ObjectFound
from dicom_nodes.received import StoreHandler
from dicom_nodes.web import json_model
from dicom_nodes.web.errors import NotThere, WebRequestError
from dicom_nodes.web.inflation import check_inflation
from dicom_nodes.web.json_model import Opened
from dicom_nodes.web.query import keyword_of

_REMEMBERED = 5000


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: Attributes of the patient and the study that a search may bring (PS3.18 table 10.6.3-3).
STUDY_FIELDS = _words(
    "SpecificCharacterSet StudyDate StudyTime AccessionNumber ReferringPhysicianName "
    "TimezoneOffsetFromUTC InstitutionName StudyDescription PatientName PatientID "
    "IssuerOfPatientID PatientBirthDate PatientSex PatientAge PatientSize PatientWeight "
    "StudyInstanceUID StudyID"
)
SERIES_FIELDS = _words(
    "SeriesDate SeriesTime Modality Manufacturer StationName SeriesDescription "
    "ManufacturerModelName BodyPartExamined ProtocolName SeriesInstanceUID SeriesNumber "
    "FrameOfReferenceUID Laterality PerformedProcedureStepStartDate "
    "PerformedProcedureStepStartTime"
)
INSTANCE_FIELDS = _words(
    "SOPClassUID SOPInstanceUID InstanceNumber Rows Columns BitsAllocated NumberOfFrames ImageType"
)


def tags_of(keywords: Sequence[str]) -> tuple[str, ...]:
    """Tags of keywords, as DICOM JSON writes them."""
    return tuple(f"{tag:08X}" for word in keywords if (tag := tag_for_keyword(word)) is not None)


@dataclass(frozen=True)
class DicomWeb:
    """What the DICOMweb routes are given.

    Attributes:
        spool, results: directories; paths in the record are relative to them.
        intake: takes what STOW-RS brings; None = nothing is taken.
        public_url: where clients reach the web server, if a proxy changes its address.
    """

    settings: DicomWebSettings
    priority: PrioritySettings
    sessions: sessionmaker[Session]
    spool: Path
    results: Path
    intake: StoreHandler | None = None
    public_url: str = ""
    clock: Clock = utc_now

    def root(self, request: Request) -> str:
        """URL of the service, as the client reaches it."""
        if self.public_url:
            return f"{self.public_url.rstrip('/')}/dicom-web"
        url, server = request.base_url, request.scope.get("server")
        if url.port is None and server and is_loopback(url.hostname or ""):
            # clients that leave the port out of the Host header reached us all the same
            url = url.replace(port=server[1])
        return f"{url}dicom-web"

    def path(self, place: str, relative: str) -> Path:
        """The file of an object."""
        return (self.spool if place == queries.SPOOL else self.results) / relative

    def file(self, found: ObjectFound) -> Path:
        """The file of an object that was found."""
        return self.path(found.place, found.path)

    def objects(self, study_uid: str, series_uid: str = "", sop_uid: str = "") -> list[ObjectFound]:
        """The instances of a study, a series, or one of them.

        Raises:
            NotThere: there are none.
        """
        filters = Filters((Study.study_uid == study_uid,))
        given = (("series_uid", series_uid), ("sop_uid", sop_uid))
        keys = {name: (value,) for name, value in given if value}
        with reading(self.sessions) as session:
            found = queries.objects(session, filters, keys)
        if not found:
            raise NotThere("no such study, series or instance; retention may have removed it")
        return found

    def open(self, found: ObjectFound) -> Opened:
        """The header of an object.

        Raises:
            NotThere: retention was faster.
            Undecodable: it cannot be parsed.
        """
        try:
            return json_model.open_header(self.file(found))
        except FileNotFoundError:
            raise NotThere("the instance was removed just now") from None


class Headers:
    """A few attributes of files, read once: an instance's file never changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Path, dict[str, Any]] = OrderedDict()

    def usual(self, path: Path) -> dict[str, Any]:
        """DICOM JSON of the fields above; empty when the file is gone or unreadable."""
        with self._lock:
            if path in self._known:
                self._known.move_to_end(path)
                return self._known[path]
        header = self.of(path, (*STUDY_FIELDS, *SERIES_FIELDS, *INSTANCE_FIELDS))
        with self._lock:
            self._known[path] = header
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return header

    def of(self, path: Path, keywords: Sequence[str]) -> dict[str, Any]:
        """DICOM JSON of these attributes; empty when the file is gone or unreadable."""
        tags = [tag for word in keywords if (tag := tag_for_keyword(word)) is not None]
        try:
            check_inflation(path)
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
            return json_model.to_json(dataset)
        except Exception:  # noqa: BLE001 - stored foreign bytes; the answer goes on without them
            return {}

    def everything(self, path: Path) -> dict[str, Any]:
        """DICOM JSON of all short attributes."""
        try:
            answer = json_model.metadata(json_model.open_header(path), "")
        except (OSError, WebRequestError):
            return {}
        return {tag: one for tag, one in answer.items() if "BulkDataURI" not in one}


def unusual(fields: Sequence[str]) -> list[str]:
    """Those asked for that `Headers.usual` does not bring."""
    known = {*STUDY_FIELDS, *SERIES_FIELDS, *INSTANCE_FIELDS}
    return [word for word in map(keyword_of, fields) if word and word not in known]
