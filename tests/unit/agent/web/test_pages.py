"""The pages and their JSON: what they show, and what they never show."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from factories import rows
from sqlalchemy import event
from sqlalchemy.orm import Session

from db.models import Study
from db.states import DeliveryState, ReadingState, StudyState
from inference.findings import Status


def _stat(session: Session, **values: Any) -> Study:
    study = rows.study(
        session,
        number=7,
        priority="STAT",
        priority_reason="Intraparenchymal hemorrhage 94% (urgent)",
        first_instance_at=rows.minutes_ago(4),
        **values,
    )
    said = rows.findings(rows.finding(grounding=rows.grounding()), rows.finding("atrophy", 0.1))
    rows.analysis(session, study, said)
    return study


def _text(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_worklist_page_shows_what_a_reader_needs(web: Any):
    """Rank, level, patient, study, findings with probability, picture, waiting time, state."""
    with web.sessions.begin() as session:
        study = _stat(session)

    page = web.client().get("/").text

    shown = _text(page)
    for expected in (
        "1 STAT Example, Patient7 PAT0007 1960-01-01 · 66 y · F",
        "CT HEAD WITHOUT CONTRAST CT · 2026-11-23 · 08:00 ACC0007 · ED",
        "Intraparenchymal hemorrhage 94 %",
        "demo-head 1.0.0",
        "4 min",
        "target 10 min",
        "Done",
    ):
        assert expected in shown
    assert f"/studies/{study.key}/findings/{rows.HEMORRHAGE}.png" in page
    assert "Atrophy" not in shown


def test_the_fragment_is_the_live_part_of_the_page(web: Any):
    """What the script puts in is what the server would have rendered."""
    with web.sessions.begin() as session:
        _stat(session)
    client = web.client()

    page, fragment = (
        client.get("/?level=STAT").text,
        client.get("/fragments/worklist?level=STAT").text,
    )

    assert fragment in page
    assert "<html" not in fragment


def test_patient_data_never_stand_in_urls_or_titles(web: Any):
    """Browsers and proxies keep those."""
    with web.sessions.begin() as session:
        study = _stat(session)
    client = web.client()

    for page in (client.get("/").text, client.get(f"/studies/{study.key}").text):
        urls = " ".join(re.findall(r'(?:href|src|action|data-\w+)="([^"]*)"', page))
        kept = urls + "".join(re.findall(r"<title>.*?</title>", page))
        assert study.key in kept
        for identity in ("Example", "PAT0007", "ACC0007", "19600101", study.study_uid):
            assert identity not in kept


def test_values_from_images_are_escaped(web: Any):
    """A study description is whatever a scanner (or somebody else) sent."""
    attack = "<script>alert(1)</script>"
    with web.sessions.begin() as session:
        study = _stat(session, description=attack, patient_name=f"{attack}^X")
    client = web.client()

    for path in ("/", f"/studies/{study.key}"):
        page = client.get(path).text
        assert attack not in page
        assert html.escape(attack) in page


def test_the_api_gives_the_order_and_the_counts(web: Any):
    """`GET /api/worklist` says the same as the page."""
    with web.sessions.begin() as session:
        rows.study(session, number=1, priority="LOW")
        study = _stat(session)

    answer = web.client().get("/api/worklist").json()

    first, second = answer["studies"]
    assert (first["study"]["accession"], first["rank"], first["level"]) == ("ACC0007", 1, "STAT")
    assert f"/api/studies/{study.key}" == first["links"]["self"]
    assert pytest.approx(0.94) == first["analysis"]["findings"][0]["probability"]
    assert second["rank"] == 2
    assert answer["open_by_level"] == {"STAT": 1, "HIGH": 0, "MEDIUM": 0, "LOW": 1}
    assert (answer["total"], answer["page"], answer["pages"]) == (2, 1, 1)


def test_the_api_pages_and_filters(web: Any):
    """`page`, `size` and the filters of the form."""
    with web.sessions.begin() as session:
        for n in range(5):
            rows.study(session, modalities="MR" if n % 2 else "CT", priority="LOW")
    client = web.client()

    assert len(client.get("/api/worklist?modality=mr").json()["studies"]) == 2
    answer = client.get("/api/worklist?size=2&page=3").json()
    assert (answer["pages"], answer["page"], len(answer["studies"])) == (3, 3, 1)
    assert client.get("/api/worklist?reading=read").json()["studies"] == []


@pytest.mark.parametrize(
    "query", ["level=URGENT", "size=0", "size=9999", "page=0", "nonsense=1", "state=lost"]
)
def test_a_wrong_filter_is_refused_without_repeating_it(web: Any, query: str):
    """What was typed may be a patient's name; it goes into no answer."""
    answer = web.client().get(f"/api/worklist?{query}")

    assert answer.status_code == 422
    assert query.split("=")[1] not in str(answer.json()["detail"]) or query.endswith("=0")
    assert web.client().get(f"/?{query}").status_code == 422


def test_empty_form_fields_are_no_filter(web: Any):
    """A form without script sends every field."""
    with web.sessions.begin() as session:
        _stat(session)

    answer = web.client().get("/?level=&modality=&state=&reading=open&finding=")

    assert "Patient7" in answer.text


def test_the_research_notice_is_on_every_page(web: Any):
    """Errors included."""
    for path in ("/", "/studies/none"):
        assert "Research use only" in web.client().get(path).text


def test_a_demonstration_pack_says_so_on_every_page(web: Any):
    """The stronger banner."""
    for path in ("/", "/studies/none"):
        page = web.client(demonstration=True).get(path).text
        assert "Demonstration, research use only" in page
        assert "not for clinical use" in page


def test_dead_letters_raise_a_banner_that_leads_to_them(web: Any):
    """Red, with the destination, and a link that shows the studies."""
    with web.sessions.begin() as session:
        result = rows.result(session, rows.analysis(session, rows.study(session, number=1)))
        rows.delivery(session, result, state=DeliveryState.DEAD, destination="archive")
        rows.study(session, number=2)
    client = web.client()

    page = client.get("/").text
    assert "1 result could not be delivered to archive" in _text(page)
    (link,) = re.findall(r'id="show-dead" href="([^"]+)"', page)
    shown = _text(client.get(html.unescape(link)).text)
    assert "Patient1" in shown
    assert "Patient2" not in shown
    assert client.get("/api/worklist").json()["dead_letters"]["number"] == 1


def test_the_study_page_tells_the_whole_story(web: Any):
    """Every label, series with reasons, deliveries with errors, timeline, feedback."""
    with web.sessions.begin() as session:
        study = _stat(session)
        rows.series(session, study, description="DOSE", modality="SR", reason="not an image")
        result = rows.result(session, rows.analysis(session, study, id="b" * 32, revision=2))
        rows.delivery(session, result, state=DeliveryState.DEAD, last_error="refused", attempts=9)
        rows.event(session, study, why="quiet for 30 s")
        rows.feedback(session, study, kind="disagreed", text="calcification")

    shown = _text(web.client().get(f"/studies/{study.key}").text)

    for expected in (
        "Intraparenchymal hemorrhage 94% (urgent)",
        "Atrophy",
        "not read: not an image",
        "refused",
        "Send again",
        "quiet for 30 s",
        "Disagreed",
        "calcification",
        "Demonstration model, not for clinical use.",
    ):
        assert expected in shown


def test_the_study_api_holds_the_record(web: Any):
    """Timeline, series, analyses with every label, results, deliveries."""
    with web.sessions.begin() as session:
        study = _stat(session)
        rows.instance(session, rows.series(session, study))
        rows.event(session, study)

    answer = web.client().get(f"/api/studies/{study.id}").json()

    assert study.study_uid == answer["study"]["study_uid"]
    assert answer["series"][0]["instances"] == 1
    assert len(answer["analyses"][0]["findings"]) == 2
    assert answer["events"][0]["kind"] == "state_changed"
    assert answer["deliveries"] == []
    assert "entry" not in answer


@pytest.mark.parametrize("reference", ["none", "999", "9" * 40, "..%2f..", "%00"])
def test_an_unknown_study_is_not_found(web: Any, reference: str):
    """As JSON for programs, as a page for people."""
    client = web.client()

    assert client.get(f"/api/studies/{reference}").status_code == 404
    assert client.get(f"/studies/{reference}").status_code == 404


@pytest.mark.parametrize("state", list(StudyState))
@pytest.mark.parametrize("analysed", [True, False])
def test_every_state_can_be_shown(web: Any, state: StudyState, analysed: bool):
    """No state, with or without a result, breaks the pages."""
    with web.sessions.begin() as session:
        study = rows.study(
            session,
            state=state,
            reason="because",
            patient_name="",
            patient_birth_date="unknown",
            description="",
            study_date="",
            accession_number="",
            modalities="",
        )
        if analysed:
            rows.analysis(session, study, rows.findings(status=Status.FAILED, reason="gap"))
    client = web.client()

    assert client.get("/").status_code == 200
    assert client.get(f"/studies/{study.key}").status_code == 200


def test_a_shadow_study_is_marked_and_its_opinion_shown(web: Any):
    """The level that moves it is the order's."""
    with web.sessions.begin() as session:
        study = rows.study(session, ordered_priority="ROUTINE")
        rows.analysis(session, study, shadow=True)

    shown = _text(web.client().get("/").text)

    assert "LOW shadow: STAT" in shown


def test_a_read_study_can_be_reopened_from_the_page(web: Any):
    """The button of each reading state leads to the next."""
    with web.sessions.begin() as session:
        rows.study(session, reading_state=ReadingState.READ)

    assert "Reopen" in web.client().get("/?reading=read").text


def test_a_picture_comes_from_the_callable_it_was_given(web: Any):
    """PNG, addressed by key; a finding without picture is not found."""
    with web.sessions.begin() as session:
        study = rows.study(session)
    client = web.client()

    answer = client.get(f"/studies/{study.key}/findings/bleed.png")
    assert (
        answer.headers["content-type"],
        answer.content.endswith(f"{study.id} bleed".encode()),
    ) == ("image/png", True)
    assert client.get(f"/studies/{study.key}/findings/absent.png").status_code == 404
    assert client.get("/studies/none/findings/bleed.png").status_code == 404


def test_the_page_only_reads(web: Any):
    """Showing the list takes no write lock and changes nothing."""
    with web.sessions.begin() as session:
        study = _stat(session)
    client = web.client()
    statements: list[str] = []
    bind = web.sessions.kw["bind"]
    event.listen(bind, "before_cursor_execute", lambda *args: statements.append(args[2].split()[0]))

    client.get("/")
    client.get(f"/studies/{study.key}")

    assert {"BEGIN", "SELECT", "WITH"} >= set(statements)
    assert "SELECT" in statements


def test_the_number_of_queries_does_not_grow_with_the_list(web: Any):
    """No query per row."""
    counts = []
    statements: list[str] = []
    event.listen(
        web.sessions.kw["bind"], "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    client = web.client()
    for _ in range(2):
        with web.sessions.begin() as session:
            for _ in range(6):
                rows.analysis(session, rows.study(session, priority="LOW"))
        statements.clear()
        client.get("/")
        counts.append(len(statements))

    assert counts[0] == counts[1]
