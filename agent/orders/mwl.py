"""Orders by asking the modality worklist of the RIS, for open studies that no order names."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent.orders import joining
from agent.orders.prioritizing import Policy
from agent.orders.reading import OrderValues, PatientRef
from agent.settings_base import TlsSettings
from agent.settings_hl7 import MwlSettings
from db.engine import reading
from db.models import Study
from db.queries import orders
from dicom_nodes import tls
from dicom_nodes.errors import NodeError
from dicom_nodes.node import Node
from dicom_nodes.scu import worklist
from dicom_nodes.scu.worklist import ScheduledProcedure

log = structlog.get_logger(__name__)

#: (accession number, patient ID), one of them empty -> what the RIS holds.
Ask = Callable[[str, str], list[ScheduledProcedure]]
#: Asked for at most so many in one sweep: a RIS is no place for bursts.
MAX_A_SWEEP = 20


@dataclass
class MwlOrders:
    """The sweep; it remembers when it asked for which study (in memory: asking again is harmless).

    Attributes:
        ask: the RIS.
        asked: study id -> when.
    """

    sessions: sessionmaker[Session]
    settings: MwlSettings
    policy: Policy
    clock: Callable[[], dt.datetime]
    ask: Ask
    wake_outbox: Callable[[], None] = lambda: None
    asked: dict[int, dt.datetime] = field(default_factory=dict)

    def __call__(self) -> int:
        """Ask for the studies whose turn it is; returns how many orders were found."""
        found = 0
        for study in self._due():
            try:
                items = self._items(study)
            except NodeError as error:
                log.warning("worklist_not_asked", why=str(error))
                break  # the next study would meet the same
            self.asked[study.id] = self.clock()
            found += sum(self._keep(study, item) for item in items)
        if found:
            self.wake_outbox()
        return found

    def _due(self) -> list[Study]:
        now = self.clock()
        since = now - dt.timedelta(hours=self.settings.give_up_hours)
        again = now - dt.timedelta(seconds=self.settings.ask_again_s)
        with reading(self.sessions) as session:
            studies = list(orders.without_order(session, since))
        ids = {study.id for study in studies}
        for gone in self.asked.keys() - ids:
            del self.asked[gone]
        due = [s for s in studies if s.id not in self.asked or self.asked[s.id] <= again]
        return [s for s in due if self._key(s) != ("", "")][:MAX_A_SWEEP]

    def _key(self, study: Study) -> tuple[str, str]:
        if self.settings.match_on == "patient":
            return "", study.patient_id
        return study.accession_number, ""

    def _items(self, study: Study) -> list[ScheduledProcedure]:
        """What the RIS holds of this study: peers that ignore keys answer with others, too."""
        return [
            item
            for item in self.ask(*self._key(study))
            if (item.accession_number and item.accession_number == study.accession_number)
            or (item.study_uid and item.study_uid == study.study_uid)
        ]

    def _keep(self, study: Study, item: ScheduledProcedure) -> int:
        if not item.patient_id:
            return 0
        with self.sessions.begin() as session:
            values = _values(item)
            joining.keep(session, values, self.settings.name, self.policy, self.clock())
        log.info("order_found", study=study.key)
        return 1


def asker(settings: MwlSettings, calling_ae: str) -> Ask:
    """How to ask the configured RIS; certificates are read at each use."""

    def ask(accession_number: str, patient_id: str) -> list[ScheduledProcedure]:
        given = settings.tls
        context = None
        if given != TlsSettings():
            context = tls.client_context(given.ca, given.certificate, given.key)
        node = Node(
            ae_title=settings.ae_title,
            host=settings.host,
            port=settings.port,
            calling_ae=calling_ae,
            tls=context,
            timeout_s=settings.timeout_s,
        )
        return worklist.find(node, accession_number=accession_number, patient_id=patient_id)

    return ask


def _values(item: ScheduledProcedure) -> OrderValues:
    return OrderValues(
        patient=PatientRef(item.patient_id, item.issuer_of_patient_id),
        accession_number=item.accession_number,
        study_uid=item.study_uid,
        procedure_id=item.procedure_id,
        placer_order=item.placer_order,
        filler_order=item.filler_order,
        procedure_code=f"^{item.procedure}^L" if item.procedure else "",
        indication=item.indication,
        priority=item.priority.upper()[:16],
        location=item.location,
        status="MWL",
    )
