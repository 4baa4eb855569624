"""Acknowledgements, made for what we receive and judged for what we send.

Original and enhanced mode, HL7 2.5.1 chapter 2.9.
"""

from __future__ import annotations

import datetime as dt
import enum
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from dicom_nodes.errors import NodeError, PeerBusy, PeerRefused
from dicom_nodes.hl7 import messages
from dicom_nodes.hl7.errors import Hl7Error
from dicom_nodes.hl7.messages import Message, Segment


class Code(enum.StrEnum):
    """Application acknowledgement of the original mode (table 0008)."""

    ACCEPT = "AA"
    ERROR = "AE"
    REJECT = "AR"


#: The same in words of the accept acknowledgement of the enhanced mode.
_COMMIT = {Code.ACCEPT: "CA", Code.ERROR: "CE", Code.REJECT: "CR"}
_TEXTS = {
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "207": "Application internal error",
}


@dataclass(frozen=True)
class Verdict:
    """What is answered: the code, and for the sender's operator why (our own words)."""

    code: Code
    reason: str = ""
    error: str = "207"
    """Of table 0357; used unless the message is accepted."""


@dataclass(frozen=True)
class Header:
    """What an answer needs of the message it answers; empty where that cannot be read."""

    application: str = ""
    facility: str = ""
    our_application: str = ""
    our_facility: str = ""
    message_type: str = ""
    event: str = ""
    control_id: str = ""
    processing_id: str = ""
    version: str = ""
    accept_ack: str = ""
    application_ack: str = ""
    charset: str = ""

    @property
    def sender(self) -> str:
        """Who numbers the messages: application and facility."""
        return f"{self.application}|{self.facility}"[:128]


def header_of(message: Message) -> Header:
    """The header of a received message."""
    get = message.get
    return Header(
        application=get("MSH-3"),
        facility=get("MSH-4"),
        our_application=get("MSH-5"),
        our_facility=get("MSH-6"),
        message_type=get("MSH-9.1").upper(),
        event=get("MSH-9.2").upper(),
        control_id=get("MSH-10"),
        processing_id=get("MSH-11").upper(),
        version=get("MSH-12"),
        accept_ack=get("MSH-15").upper(),
        application_ack=get("MSH-16").upper(),
        charset=get("MSH-18"),
    )


def answers(header: Header, verdict: Verdict, now: dt.datetime) -> list[bytes]:
    """What goes back, in order: one acknowledgement (original mode), or what MSH-15/16 ask for."""
    enhanced = header.accept_ack or header.application_ack
    if not enhanced:
        return [_message(header, verdict, verdict.code, now)]
    ok = verdict.code is Code.ACCEPT
    found = []
    if _wanted(header.accept_ack, ok=ok):
        found.append(_message(header, verdict, _COMMIT[verdict.code], now))
    if _wanted(header.application_ack, ok=ok):
        found.append(_message(header, verdict, verdict.code, now))
    return found


def _wanted(condition: str, *, ok: bool) -> bool:
    """Table 0155: always, never, on error or reject, on success."""
    return {"AL": True, "NE": False, "ER": not ok, "SU": ok}.get(condition, False)


def _message(header: Header, verdict: Verdict, code: str, now: dt.datetime) -> bytes:
    msh = Segment("MSH").set(3, header.our_application).set(4, header.our_facility)
    msh.set(5, header.application).set(6, header.facility).set(7, timestamp(now))
    msh.set(9, *(("ACK", header.event, "ACK") if header.event else ("ACK",)))
    msh.set(10, secrets.token_hex(10)).set(11, header.processing_id or "P")
    msh.set(12, header.version or "2.5.1")
    msa = Segment("MSA").set(1, code).set(2, header.control_id)
    segments = [msh, msa]
    if verdict.code is not Code.ACCEPT:
        msa.set(3, verdict.reason[:80])
        segments.append(_err(header, verdict))
    return messages.text_of(segments).encode("ascii", errors="replace")


def _err(header: Header, verdict: Verdict) -> Segment:
    meaning = (verdict.error, _TEXTS.get(verdict.error, "Error"), "HL70357")
    if header.version < "2.5":  # ERR-1 was one composite before
        return Segment("ERR").set(1, "", "", "", *meaning[:1])
    return Segment("ERR").set(3, *meaning).set(4, "E").set(8, verdict.reason[:250])


def timestamp(at: dt.datetime) -> str:
    """HL7 TS with offset, local time."""
    return at.astimezone().strftime("%Y%m%d%H%M%S%z")


def judge(content: bytes, control_id: str, on_error: str, on_reject: str) -> bool:
    """Judge an answer to a message of ours.

    Args:
        content: the answer.
        control_id: of the message.
        on_error: what AE means for us: ``retry`` or ``dead``.
        on_reject: what AR means for us.

    Returns:
        True: taken. False: this answers another message; wait for the next.

    Raises:
        NodeError: not taken; `permanent` says whether to send it again.
    """
    try:
        answer = Message.read(content, "8859/1")
    except Hl7Error as error:
        raise PeerBusy("the receiver's answer is no HL7 message; will try again") from error
    code = answer.get("MSA-1").upper()
    answered = answer.get("MSA-2")
    if answered and answered != control_id:
        return False
    if code in {"AA", "CA"}:
        return True
    policy = on_reject if code in {"AR", "CR"} else on_error
    raise _not_taken(code, answer, policy)


def _not_taken(code: str, answer: Message, policy: str) -> NodeError:
    error = answer.get("ERR-3") or answer.get("ERR-1.4") or answer.get("MSA-6")
    known = _TEXTS.get(error, "")
    said = f" ({error} {known})" if known else ""
    name = code if code in {"AE", "CE", "AR", "CR"} else "something that is no acknowledgement"
    kind: Callable[[str], NodeError] = PeerRefused if policy == "dead" else PeerBusy
    mend = "see the receiver's log" if policy == "dead" else "will try again"
    return kind(f"the receiver answered {name}{said}; {mend}")


__all__ = [
    "Code",
    "Header",
    "Verdict",
    "answers",
    "header_of",
    "judge",
    "timestamp",
]
