"""A reasoning model's opinion: what it is told, what it is believed, and where it may be."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from factories import http

from inference.findings import Acuity
from inference.report import triage
from inference.report.draft import ClinicalContext, Draft, Sentence, Source
from inference.report.errors import AnswerError, DraftError
from inference.report.house import House, LeavesTheHouse, check_endpoint
from inference.report.scrub import MARK, scrub
from inference.report.triage import HttpReasoner, ReasonerSettings
from inference.report.vllm.errors import ServerFault

GOOD = {"triage_assessment": "Acute subdural hematoma.", "triage_level": "Urgent"}
IDENTIFIERS = ("Zyxwvut^Qpmark", "MARKID7731", "ACCMARK5523", "19431109")


class Says:
    """A reasoner that answers what a test wants and keeps what it was asked."""

    model = "reasoner"

    def __init__(self, text: str = json.dumps(GOOD)) -> None:
        self.text = text
        self.asked = ""

    def answer(self, messages: Any, form: Any) -> str:
        """The test's text."""
        self.asked = json.dumps([*messages, form])
        return self.text


def _draft(*sentences: str) -> Draft:
    return Draft("CT head", tuple(Sentence(one) for one in sentences), Source.MODEL, "m 1")


def test_the_opinion_is_level_and_reason() -> None:
    """With the name of the model that gave it."""
    opinion = triage.interpret("Findings:\n- hematoma", Says())

    assert opinion.level is Acuity.URGENT
    assert (opinion.reason, opinion.model) == ("Acute subdural hematoma.", "reasoner")


@pytest.mark.parametrize(
    ("name", "level"), [("Urgent", "urgent"), ("Routine", "routine"), ("Normal", "normal")]
)
def test_every_level_is_known(name: str, level: str) -> None:
    """The published three, nothing else."""
    said = Says(json.dumps({**GOOD, "triage_level": name}))

    assert triage.interpret("x", said).level == level
    assert f"\n{name}: " in triage.instructions()


@pytest.mark.parametrize(
    "text",
    [
        "Urgent",
        "",
        "```json\n" + json.dumps(GOOD) + "\n```",
        json.dumps({**GOOD, "triage_level": "urgent"}),
        json.dumps({**GOOD, "triage_level": "Critical"}),
        json.dumps({**GOOD, "triage_level": None}),
        json.dumps({**GOOD, "triage_assessment": " "}),
        json.dumps({**GOOD, "triage_assessment": 3}),
        json.dumps({**GOOD, "triage_assessment": "x" * 500}),
        json.dumps({**GOOD, "more": 1}),
        json.dumps({"triage_level": "Normal"}),
        json.dumps([GOOD]),
        '{"triage_level":"Normal","triage_level":"Urgent","triage_assessment":"x"}',
    ],
)
def test_anything_else_is_no_opinion(text: str) -> None:
    """A level guessed from half an answer would move a patient."""
    with pytest.raises(AnswerError):
        triage.interpret("x", Says(text))


def test_only_findings_age_sex_and_indication_are_told() -> None:
    """Identifiers that slipped into free text are removed on the way."""
    context = ClinicalContext(
        "CT",
        indication="Mrs. Qpmark Zyxwvut (MARKID7731), born 9 Nov 1943, fell; acc ACCMARK5523",
        age_years=81.4,
        sex="F",
        body_part="HEAD of MARKID7731",
        series=("axial for ZYXWVUT",),
    )
    text = triage.describe(_draft("Hematoma, 12 mm, in Zyxwvut."), context, IDENTIFIERS)
    said = Says()
    triage.interpret(text, said)

    words = ("zyxwvut", "qpmark", "markid7731", "accmark5523", "1943", "axial")
    assert [word for word in words if word in said.asked.lower()] == []
    assert all(kept in said.asked for kept in ("12 mm", "fell", "81", "female"))


def test_interpret_scrubs_what_describe_did_not_make() -> None:
    """The second lock holds for text from elsewhere."""
    said = Says()
    triage.interpret("Patient: Jane Doe\nMRN 4711882, call 555-123-4567", said)

    assert [one for one in ("Jane", "4711882", "555-123") if one in said.asked] == []


def test_very_old_age_is_not_told_exactly() -> None:
    """It names people in small towns."""
    text = triage.describe(_draft(), ClinicalContext("CT", age_years=101))

    assert "101" not in text
    assert "90 or older" in text
    assert "nothing abnormal" in text


@pytest.mark.parametrize(
    "text",
    [
        "5 mm midline shift, 12 x 8 x 14 mm lesion at T2/FLAIR, C3-4 stenosis, 3.5 cm",
        "GCS 15, headache for 10 days, after EVD 3 days ago, may show old infarct",
        "Left MCA M1 occlusion with 15 ml core, 110 HU.",
    ],
)
def test_medicine_is_left_alone(text: str) -> None:
    """A scrubber that eats measurements changes the opinion."""
    assert scrub(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-31",
        "31.01.24",
        "1/31/2024",
        "31 Jan 2024",
        "January 31, 2024",
        "jane.doe@example.org",
        "+49 30 1234567",
        "(555) 123-4567",
        "MRN: 8837261",
        "Acc. no. X99/22",
        "Doe^Jane^M",
        "Dr. Müller",
        "Prof. van-Dyke",
        "1.2.840.113619.2.55.3",
        "A1234567",
        "born 3.3.51",
        "Name: Jane Doe",
        "20240131",
    ],
)
def test_identifiers_are_removed(text: str) -> None:
    """Each kind by itself, in the middle of a sentence."""
    said = scrub(f"seen {text} with hematoma")

    assert said.startswith("seen ")
    assert MARK in said
    assert said.endswith("with hematoma")
    assert not any(word in said for word in ("Jane", "Doe", "Dyke", "example"))
    digits = [word for word in said.split() if any(c.isdigit() for c in word)]
    assert digits == []


def _settings(url: str, house: House | None = None, **changes: Any) -> ReasonerSettings:
    return ReasonerSettings(url, "reasoner", house or House(), api_key="k", **changes)


def _chat(text: str = json.dumps(GOOD), **changes: Any) -> dict[str, Any]:
    choice = {"message": {"content": text}, "finish_reason": "stop", **changes}
    return {"choices": [choice]}


def _asked(answer: http.Answer, **changes: Any) -> tuple[Any, list[http.Request]]:
    with http.serving(lambda _: answer) as server:
        url = server.url.removesuffix("/dicom-web")
        client = HttpReasoner(_settings(url, **changes), sleep=lambda _: None)
        try:
            return triage.interpret("- hematoma", client), server.requests
        finally:
            client.close()


def test_it_is_asked_deterministically() -> None:
    """Temperature 0, one answer, a schema, the key; nothing else about the study."""
    opinion, [request] = _asked(http.Answer(200, _chat()))
    body = json.loads(request.body)

    assert opinion.level is Acuity.URGENT
    assert (request.path, request.headers["Authorization"]) == ("/v1/chat/completions", "Bearer k")
    assert (body["temperature"], body["seed"], body["n"]) == (0, 0, 1)
    assert body["response_format"]["json_schema"]["schema"] == triage.SCHEMA
    assert set(body) == {
        *("model", "messages", "temperature", "seed", "n", "max_tokens", "response_format")
    }


@pytest.mark.parametrize(
    ("answer", "error", "times"),
    [
        (http.Answer(500), ServerFault, 2),
        (http.Answer(200, b"<html>"), ServerFault, 2),
        (http.Answer(200, {"error": "x"}), ServerFault, 2),
        (http.Answer(200, _chat("!!!!!!!!")), ServerFault, 2),
        (http.Answer(200, _chat(finish_reason="length")), AnswerError, 1),
        (http.Answer(200, {"choices": []}), AnswerError, 1),
        (http.Answer(200, _chat("")), AnswerError, 1),
        (http.Answer(400), DraftError, 1),
        (http.Answer(302), DraftError, 1),
    ],
)
def test_faults_are_tried_again_and_answers_are_not(
    answer: http.Answer, error: type, times: int
) -> None:
    """Bounded; the model's words would be the same again."""
    seen: list[http.Request] = []
    with http.serving(lambda request: (seen.append(request), answer)[1]) as server:
        client = HttpReasoner(
            _settings(server.url.removesuffix("/dicom-web")), sleep=lambda _: None
        )
        with pytest.raises(error):
            triage.interpret("x", client)
        client.close()
    assert len(seen) == times


@pytest.mark.parametrize(
    ("addresses", "house", "inside"),
    [
        (["127.0.0.1"], House(), True),
        (["10.1.2.3"], House(), True),
        (["fd00::5"], House(), True),
        (["::ffff:192.168.1.5"], House(), True),
        (["192.0.2.7"], House(), False),
        (["8.8.8.8"], House(), False),
        (["169.254.169.254"], House(), False),
        (["10.1.2.3", "8.8.8.8"], House(), False),
        (["::ffff:8.8.8.8"], House(), False),
        (["192.0.2.7"], House(("192.0.2.0/24",)), True),
        (["8.8.8.8"], House((), "llm.example", True), True),
        (["8.8.8.8"], House((), "LLM.Example.", True), True),
        (["8.8.8.8"], House((), "other.example", True), False),
        (["8.8.8.8"], House((), "llm.example", False), False),
    ],
)
def test_a_host_is_inside_by_its_addresses(
    addresses: list[str], house: House, inside: bool
) -> None:
    """Not by its name; outside it takes two statements of the operator."""
    try:
        check_endpoint("https://llm.example/v1", house, lambda *_: addresses)
        told = True
    except LeavesTheHouse:
        told = False

    assert told is inside


def test_a_name_that_moves_out_after_the_start_is_refused() -> None:
    """The address that was checked is the one that is connected to, at every connection."""
    addresses = iter(["127.0.0.1", "8.8.8.8"])
    client = HttpReasoner(_settings("http://llm.example:9"), lookup=lambda *_: [next(addresses)])
    with pytest.raises(LeavesTheHouse):
        triage.interpret("x", client)
    client.close()


def test_an_endpoint_outside_is_refused_at_once() -> None:
    """Before a study is at hand."""
    with pytest.raises(LeavesTheHouse, match="data_may_leave"):
        HttpReasoner(_settings("https://llm.example"), lookup=lambda *_: ["8.8.8.8"])


def test_redirects_are_not_followed() -> None:
    """A server inside cannot send the findings outside."""
    with http.serving(lambda _: http.Answer(307)) as server:
        client = HttpReasoner(_settings(server.url.removesuffix("/dicom-web")))
        assert isinstance(client._http, httpx.Client)
        assert client._http.follow_redirects is False
        client.close()
