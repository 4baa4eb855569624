"""Acknowledgements: what is answered in which mode, and what an answer to us means."""

from __future__ import annotations

import datetime as dt

import pytest

from dicom_nodes.errors import NodeError
from dicom_nodes.hl7 import acknowledgements
from dicom_nodes.hl7.acknowledgements import Code, Header, Verdict
from dicom_nodes.hl7.messages import Message

NOW = dt.datetime(2026, 11, 23, 8, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("accept", "application", "code", "answered"),
    [
        ("", "", Code.ACCEPT, ["AA"]),
        ("", "", Code.ERROR, ["AE"]),
        ("", "", Code.REJECT, ["AR"]),
        ("AL", "NE", Code.ACCEPT, ["CA"]),
        ("AL", "NE", Code.ERROR, ["CE"]),
        ("AL", "AL", Code.REJECT, ["CR", "AR"]),
        ("NE", "AL", Code.ACCEPT, ["AA"]),
        ("NE", "NE", Code.ACCEPT, []),
        ("ER", "NE", Code.ACCEPT, []),
        ("ER", "NE", Code.ERROR, ["CE"]),
        ("SU", "ER", Code.ACCEPT, ["CA"]),
        ("SU", "ER", Code.ERROR, ["AE"]),
    ],
)
def test_the_mode_decides_what_is_answered(
    accept: str, application: str, code: Code, answered: list[str]
) -> None:
    """Original mode: one application acknowledgement; enhanced mode: as MSH-15 and MSH-16 ask."""
    header = Header(control_id="ID1", accept_ack=accept, application_ack=application)
    found = acknowledgements.answers(header, Verdict(code, "why"), NOW)

    assert [Message.read(one).get("MSA-1") for one in found] == answered


def test_an_answer_goes_back_to_its_sender() -> None:
    """Applications swapped, control id repeated, the reason escaped."""
    header = Header("RIS", "HOSP", "WL", "RAD", "ORM", "O01", "ID|1", "P", "2.5.1")
    (answer,) = acknowledgements.answers(header, Verdict(Code.ERROR, "a|b", "101"), NOW)
    message = Message.read(answer)

    assert [message.get(f"MSH-{n}") for n in (3, 4, 5, 6)] == ["WL", "RAD", "RIS", "HOSP"]
    assert (message.get("MSA-2"), message.get("MSA-3")) == ("ID|1", "a|b")
    assert (message.get("ERR-3"), message.get("ERR-4")) == ("101", "E")


def answer(code: str, control_id: str = "ID1", error: str = "") -> bytes:
    """What a receiver says."""
    return f"MSH|^~\\&|R|||||20261123||ACK|1|P|2.5.1\rMSA|{code}|{control_id}\r{error}".encode()


@pytest.mark.parametrize(
    ("code", "policy", "permanent"),
    [
        ("AE", ("retry", "dead"), False),
        ("CE", ("dead", "dead"), True),
        ("AR", ("retry", "dead"), True),
        ("CR", ("retry", "retry"), False),
        ("XX", ("retry", "dead"), False),
    ],
)
def test_the_site_says_what_a_refusal_means(
    code: str, policy: tuple[str, str], permanent: bool
) -> None:
    """AE passes and AR stays, unless the site's receiver means it otherwise."""
    with pytest.raises(NodeError) as caught:
        acknowledgements.judge(answer(code, error="ERR|^^^207\r"), "ID1", *policy)

    assert caught.value.permanent is permanent
    assert "Application internal error" in str(caught.value)


def test_only_the_answer_to_this_message_counts() -> None:
    """A late answer to an earlier message is passed over; one that is no message is transient."""
    assert acknowledgements.judge(answer("AA"), "ID1", "retry", "dead")
    assert acknowledgements.judge(answer("CA"), "ID1", "retry", "dead")
    assert not acknowledgements.judge(answer("AR", "ID0"), "ID1", "retry", "dead")
    with pytest.raises(NodeError) as caught:
        acknowledgements.judge(b"HTTP/1.1 400", "ID1", "retry", "dead")
    assert not caught.value.permanent
