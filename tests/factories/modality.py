"""A modality and an archive that talk: performed steps, availability notices, commitment requests.

pynetdicom as the client; DCMTK has no program that speaks N-CREATE or N-ACTION.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import (
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
    StorageCommitmentPushModel,
)

from dicom_nodes import commitment
from dicom_nodes.commitment import Reference, Report, Request

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class Modality:
    """One AE that asks the node at `port`; each call is an association of its own.

    Attributes:
        reports: storage commitment reports it was given, on whichever association.
    """

    port: int
    ae_title: str = "CT01"
    timeout_s: float = 20.0
    reports: list[Report] = field(default_factory=list)
    heard: threading.Event = field(default_factory=threading.Event)

    def create_step(
        self,
        sop_uid: str | None,
        *study_uids: str,
        status: str = "IN PROGRESS",
        series: Sequence[tuple[str, Sequence[str]]] = (),
    ) -> int:
        """N-CREATE; the status answered."""
        ds = step(status, series)
        ds.ScheduledStepAttributesSequence = [_study(uid) for uid in study_uids]
        return self._call(
            ModalityPerformedProcedureStep,
            lambda assoc: assoc.send_n_create(ds, ModalityPerformedProcedureStep, sop_uid),
        )

    def set_step(
        self, sop_uid: str, status: str, series: Sequence[tuple[str, Sequence[str]]] = ()
    ) -> int:
        """N-SET; the status answered."""
        ds = step(status, series)
        return self._call(
            ModalityPerformedProcedureStep,
            lambda assoc: assoc.send_n_set(ds, ModalityPerformedProcedureStep, sop_uid),
        )

    def send_step(self, ds: Dataset, sop_uid: str) -> int:
        """N-CREATE of any dataset."""
        return self._call(
            ModalityPerformedProcedureStep,
            lambda assoc: assoc.send_n_create(ds, ModalityPerformedProcedureStep, sop_uid),
        )

    def notify(
        self, sop_uid: str, study_uid: str, series: Sequence[tuple[str, Sequence[str]]]
    ) -> int:
        """Instance Availability Notification; the status answered."""
        ds = Dataset()
        ds.StudyInstanceUID = study_uid
        ds.ReferencedPerformedProcedureStepSequence = []
        ds.ReferencedSeriesSequence = [_available(uid, uids) for uid, uids in series]
        return self._call(
            InstanceAvailabilityNotification,
            lambda assoc: assoc.send_n_create(ds, InstanceAvailabilityNotification, sop_uid),
        )

    def ask_commitment(
        self, transaction_uid: str, references: Sequence[tuple[str, str]], *, wait_s: float = 0
    ) -> int:
        """N-ACTION, then hold the association open for the report up to `wait_s`."""
        request = Request(transaction_uid, tuple(Reference(*pair) for pair in references))
        ds = commitment.request_dataset(request)

        def ask(assoc: Any) -> Any:
            answer = assoc.send_n_action(ds, 1, StorageCommitmentPushModel, commitment.INSTANCE_UID)
            if wait_s:
                self.heard.wait(wait_s)
            return answer

        return self._call(
            StorageCommitmentPushModel, ask, [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        )

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Take commitment reports on a port of our own; yields the port."""
        ae = AE(self.ae_title)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()

    def report(self, report: Report) -> int:
        """N-EVENT-REPORT to the node, on an association that we open as provider."""
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        return self._call(
            StorageCommitmentPushModel,
            lambda assoc: assoc.send_n_event_report(
                commitment.report_dataset(report),
                report.event_type,
                StorageCommitmentPushModel,
                commitment.INSTANCE_UID,
            ),
            roles=[role],
        )

    def _on_report(self, event: Any) -> tuple[int, None]:
        self.reports.append(commitment.read_report(event.event_information))
        self.heard.set()
        return 0x0000, None

    def _call(
        self,
        sop_class: Any,
        exchange: Callable[[Any], Any],
        handlers: Sequence[Any] = (),
        roles: Sequence[Any] = (),
    ) -> int:
        ae = AE(self.ae_title)
        ae.dimse_timeout = self.timeout_s
        assoc = ae.associate(
            "127.0.0.1",
            self.port,
            contexts=[build_context(sop_class)],
            evt_handlers=list(handlers),
            ext_neg=list(roles),
        )
        assert assoc.is_established
        try:
            status, _ = exchange(assoc)
        finally:
            assoc.release()
        return int(status.Status)


def step(status: str, series: Sequence[tuple[str, Sequence[str]]]) -> Dataset:
    """A performed procedure step's dataset."""
    ds = Dataset()
    ds.PerformedProcedureStepStatus = status
    ds.PerformedProcedureStepID = "PPS1"
    ds.Modality = "CT"
    ds.PerformedSeriesSequence = [_performed(uid, uids) for uid, uids in series]
    return ds


def _study(uid: str) -> Dataset:
    ds = Dataset()
    ds.StudyInstanceUID = uid
    return ds


def _performed(series_uid: str, sop_uids: Sequence[str]) -> Dataset:
    ds = Dataset()
    ds.SeriesInstanceUID = series_uid
    ds.ReferencedImageSequence = [_reference(uid) for uid in sop_uids]
    return ds


def _available(series_uid: str, sop_uids: Sequence[str]) -> Dataset:
    ds = Dataset()
    ds.SeriesInstanceUID = series_uid
    ds.ReferencedSOPSequence = [_reference(uid) for uid in sop_uids]
    for item in ds.ReferencedSOPSequence:
        item.InstanceAvailability = "ONLINE"
        item.RetrieveAETitle = "PACS"
    return ds


def _reference(uid: str) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID = CT
    ds.ReferencedSOPInstanceUID = uid
    return ds
