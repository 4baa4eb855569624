"""The orders room: one message of the RIS → recorded, acted upon, acknowledged, in this order.

Two transactions: the message is on record before anything is done with it, so that an AA is never
a lie and a message that cannot be used is kept for a person to look at. A crash between the two
leaves it *received*; the sender, unanswered, sends it again, or the next sweep takes it up. When
the record itself is away, nothing is answered: that is what every sender repeats upon.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from agent import faults
from agent.clock import Clock
from agent.orders import joining, merging, reading, reports
from agent.orders.prioritizing import Policy
from agent.orders.reading import Demographics, FinalReport, Merge, OrderValues
from agent.settings_hl7 import Hl7Settings
from db.models import Hl7Message
from db.queries import hl7_messages as rows
from db.queries.hl7_messages import MessageState
from dicom_nodes.hl7 import acknowledgements
from dicom_nodes.hl7.acknowledgements import Code, Header, Verdict
from dicom_nodes.hl7.errors import Hl7Error, Hl7Unsupported
from dicom_nodes.hl7.messages import Message

log = structlog.get_logger(__name__)

#: Told (message type, answer) of every message.
Observe = Callable[[str, str], None]


@dataclass(frozen=True)
class OrdersRoom:
    """What the room needs: the record, the site's mapping, and the policy of priorities."""

    sessions: sessionmaker[Session]
    settings: Hl7Settings
    policy: Policy
    clock: Clock
    wake_outbox: Callable[[], None] = lambda: None

    def handle(self, content: bytes, peer: str) -> Sequence[bytes]:
        """Deal with one message from the wire; returns what is answered.

        Raises:
            SQLAlchemyError: it could not be recorded; answer nothing.
        """
        header, fault = self._header(content)
        if fault is None:
            fault = self._refusal(header)
        if isinstance(fault, Hl7Unsupported):
            verdict = self._unsupported(header, fault, peer)
        else:
            verdict = self._recorded(content, header, fault, peer)
        return acknowledgements.answers(header, verdict, self.clock())

    def take_up(self) -> int:
        """Act upon what was recorded and left; returns how many."""
        with self.sessions() as session:
            waiting = rows.waiting(session)
        for message_id in waiting:
            self._act(message_id)
        return len(waiting)

    def _header(self, content: bytes) -> tuple[Header, Hl7Error | None]:
        """The header, also of a message that is not in its character set."""
        try:
            message = Message.read(content, self.settings.default_charset)
        except Hl7Error as error:
            try:
                message = Message.parse(content.decode("latin-1"))
            except Hl7Error:
                return Header(), error
            return acknowledgements.header_of(message), error
        return acknowledgements.header_of(message), None

    def _refusal(self, header: Header) -> Hl7Error | None:
        if not header.control_id:
            return Hl7Error("MSH-10 is empty: without a control id it cannot be acknowledged")
        try:
            reading.refuse(
                header.message_type,
                header.event,
                header.version,
                header.processing_id,
                self.settings,
            )
        except Hl7Unsupported as error:
            return error
        return None

    def _unsupported(self, header: Header, error: Hl7Unsupported, peer: str) -> Verdict:
        """Not ours: the sender keeps it, so we need not; unless the site wants peace."""
        if self.settings.ignore_other_events and error.code in {"200", "201"}:
            return Verdict(Code.ACCEPT)
        log.warning("hl7_message_rejected", peer=peer, why=str(error))
        return Verdict(Code.REJECT, str(error), error.code)

    def _recorded(
        self, content: bytes, header: Header, fault: Hl7Error | None, peer: str
    ) -> Verdict:
        row = self._record(content, header, fault, peer)
        if row.state == MessageState.RECEIVED:
            return self._act(row.id)
        if row.state == MessageState.QUARANTINED:
            log.warning("hl7_message_quarantined", peer=peer, index=row.id, why=row.reason)
        return _verdict(row)

    def _record(
        self, content: bytes, header: Header, fault: Hl7Error | None, peer: str
    ) -> Hl7Message:
        """Commit the message, or find the same one that was committed before."""
        digest = _digest(content)
        key = (header.sender, header.control_id[:200], digest)
        row = Hl7Message(
            sender=key[0],
            control_id=key[1],
            sha256=digest,
            message_type=f"{header.message_type}^{header.event}"[:16],
            state=MessageState.QUARANTINED if fault else MessageState.RECEIVED,
            reason=str(fault or ""),
            acknowledgement=Code.ERROR if fault else "",
            content=content,
            peer=peer[:64],
            received_at=self.clock(),
        )
        try:
            with self.sessions.begin() as session:
                known = rows.known(session, *key)
                if known is not None:
                    return known
                session.add(row)
        except IntegrityError:  # the same message, at the same moment, over another connection
            with self.sessions() as session:
                known = rows.known(session, *key)
                if known is None:
                    raise
                return known
        return row

    def _act(self, message_id: int) -> Verdict:
        try:
            with self.sessions.begin() as session:
                row = rows.locked(session, message_id)
                if row is None or row.state != MessageState.RECEIVED:
                    return _verdict(row)
                row.reason = self._apply(session, row)
                row.state = MessageState.IGNORED if row.reason else MessageState.APPLIED
                row.acknowledgement, row.applied_at = Code.ACCEPT, self.clock()
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001  the edge: kept, answered AE, a person looks
            return self._quarantine(message_id, error)
        self.wake_outbox()
        log.info("hl7_message_applied", kind=row.message_type, status=row.state, index=row.id)
        return Verdict(Code.ACCEPT)

    def _apply(self, session: Session, row: Hl7Message) -> str:
        """Do what the message asks; returns why there was nothing to do."""
        message = Message.read(row.content, self.settings.default_charset)
        asked = reading.actions(message, self.settings)
        if not asked:
            return "not a final report" if row.message_type.startswith("ORU") else "nothing asked"
        done = [self._do(session, action, row) for action in asked]
        return "" if any(done) else "it is about nobody here"

    def _do(self, session: Session, action: reading.Action, row: Hl7Message) -> int:
        now = self.clock()
        match action:
            case OrderValues():
                joining.keep(session, action, f"hl7 {row.id}", self.policy, now)
                return 1
            case Merge():
                return merging.merge(session, action, now)
            case Demographics():
                return merging.update(session, action, now)
            case FinalReport():
                marks = self.settings.report_marks_read
                return reports.keep(session, action, now, marks_read=marks)

    def _quarantine(self, message_id: int, error: Exception) -> Verdict:
        why = faults.describe(error)
        with self.sessions.begin() as session:
            row = rows.locked(session, message_id)
            if row is not None:
                row.state, row.reason = MessageState.QUARANTINED, why
                row.acknowledgement = Code.ERROR
        log.warning("hl7_message_quarantined", index=message_id, why=why)
        return Verdict(Code.ERROR, why, getattr(error, "code", "207"))


def _verdict(row: Hl7Message | None) -> Verdict:
    if row is None or not row.acknowledgement:
        return Verdict(Code.ERROR, "the message was removed meanwhile")
    code = Code(row.acknowledgement)
    return Verdict(code, "" if code is Code.ACCEPT else row.reason)


def _digest(content: bytes) -> str:
    """Of what follows the header segment; of everything when there is no such thing."""
    parts = re.split(rb"\r\n|\r|\n", content, maxsplit=1)
    return hashlib.sha256(parts[1] if len(parts) > 1 else content).hexdigest()
