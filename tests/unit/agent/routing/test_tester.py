"""The rule tester: the same decision as the flow, with its reasons, and nothing kept."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path
from typing import Any

import pydicom
import pytest
from factories import access, dicom, rows
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from agent import database
from agent.cli import app
from agent.routing import tester
from agent.routing.book import RuleBook
from agent.settings import Destination, PackSettings, RoutingRule, RoutingSettings
from db import engine

CT = "1.2.840.10008.5.1.4.1.1.2"


def _book(*, shadow: bool = False) -> RuleBook:
    rules = (
        {"name": "phantoms", "when": {"text": "phantom"}, "skip": "phantom"},
        {"name": "head CT", "when": {"modality": "CT", "text": "head"}, "pack": "demo"},
        {"name": "any CT", "when": {"modality": "CT"}, "pack": "other"},
    )
    return RuleBook(
        routing=RoutingSettings(rules=tuple(RoutingRule(**r) for r in rules)),
        packs={
            "demo": PackSettings(path=Path("demo"), shadow=shadow),
            "other": PackSettings(path=Path("other"), shadow=True),
        },
        destinations=(
            Destination(name="pacs", kind="dicom", ae_title="PACS", shadow=False),
            Destination(name="ris", kind="hl7", shadow=True),
        ),
    )


def _file(**values: Any) -> bytes:
    (dataset,) = dicom.ct_series(n=1, rows=8, cols=8)
    dicom.set_tags(dataset, {"StudyDescription": "CT HEAD", **values})
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture
def record(tmp_path: Path) -> sessionmaker[Session]:
    """A fresh SQLite record at `tmp_path`/worklist-agent.db."""
    bind = engine.create_engine(f"sqlite:///{tmp_path / 'worklist-agent.db'}")
    database.upgrade(bind)
    return engine.session_factory(bind)


def test_a_file_shows_the_rule_that_decides_and_the_others_that_match():
    """The first that matches decides; the later one is seen to match too."""
    trial = tester.of_bytes(_file(), _book())

    assert [(r.name, r.matches, r.decides) for r in trial.rules] == [
        ("phantoms", False, False),
        ("head CT", True, True),
        ("any CT", True, False),
    ]
    assert trial.route.packs == ("demo",)
    assert [(c.destination, c.withheld) for c in trial.channels] == [
        ("pacs", ""),
        ("ris", "the destination is in shadow mode"),
    ]


def test_a_pack_in_shadow_mode_withholds_everything():
    """From the destinations that are live, too."""
    channels = tester.of_bytes(_file(), _book(shadow=True)).channels

    assert channels[0].withheld == "all packs are in shadow mode"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, ""),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"SeriesDescription": "DOSE REPORT"}, "dose report"),
    ],
)
def test_a_series_that_no_model_would_get_says_why(values: dict[str, Any], reason: str):
    """As the reader of series judges it."""
    (series,) = tester.of_bytes(_file(**values), _book()).series

    assert series.reason == reason


@pytest.mark.parametrize("head", [b"", b"nothing" * 100, b"\0" * 128 + b"DICM\xff\xff"])
def test_what_is_no_dicom_file_is_refused_without_a_word_of_it(head: bytes):
    """Any rubbish may be dropped."""
    with pytest.raises(tester.NotTestable, match="DICOM file"):
        tester.of_bytes(head, _book())


def test_the_head_of_a_file_is_enough():
    """The page sends only that; pixels stay in the browser."""
    whole = _file()
    assert tester.of_bytes(whole[: len(whole) - 40], _book()) == tester.of_bytes(whole, _book())


def test_a_study_and_the_last_days(record: sessionmaker[Session]):
    """What the rules of now would have done, and with whom they would deal otherwise."""
    now = rows.NOW
    with record.begin() as session:
        head = rows.study(session, rule="head CT", pack="demo", last_instance_at=now)
        series = rows.series(session, head)
        for _ in range(5):
            rows.instance(session, series, sop_class_uid=CT)
        rows.series(session, head, modality="SR", description="ours", own_result=True)
        spine = rows.study(
            session,
            description="CT SPINE",
            body_part="SPINE",
            rule="spine",
            pack="",
            last_instance_at=now - dt.timedelta(days=1),
        )
        rows.series(session, spine, description="SAG")
        rows.study(session, last_instance_at=now - dt.timedelta(days=8))

    with record() as session:
        trial = tester.of_study(session, session.merge(head), _book())
        history = tester.history(session, _book(), now, 7)

    assert {(s.modality, s.reason) for s in trial.series} == {
        ("CT", ""),
        ("SR", "a result of this agent"),
    }
    assert history.studies == 2
    assert {name: n for name, _, n in history.counts} == {
        "phantoms": 0,
        "head CT": 1,
        "any CT": 1,
        "(no rule)": 0,
    }
    assert [(c.study_id, c.then, c.now) for c in history.changed] == [
        (spine.id, "spine: not read", "any CT: other")
    ]


def test_the_command_tries_files_and_studies(
    record: sessionmaker[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`rules test FILE`, `rules test UID`, `rules history`, all against the configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(
        '[storage]\ndata_dir = "."\n[packs.demo]\npath = "demo"\n'
        '[[routing.rules]]\nname = "head CT"\nwhen = { modality = "CT", text = "head" }\n'
        'pack = "demo"\n'
    )
    (tmp_path / "image.dcm").write_bytes(_file())
    with record.begin() as session:
        study = rows.study(session)
        rows.series(session, study)

    for target in ("image.dcm", study.study_uid):
        answer = CliRunner().invoke(app, ["rules", "test", target])
        assert (answer.exit_code, answer.output.splitlines()[0]) == (
            0,
            "rule head CT: read by demo",
        ), answer.output
    assert CliRunner().invoke(app, ["rules", "history", "--json"]).exit_code == 0
    assert CliRunner().invoke(app, ["rules", "test", "1.2.3"]).exit_code == 1


def test_the_page_tries_a_study_and_a_file_and_keeps_neither(record: sessionmaker[Session]):
    """The look is audited; viewers do not come in; a form of another site cannot ask."""
    house = access.house(record, rules=_book())
    with record.begin() as session:
        study = rows.study(session)
        rows.series(session, study)
    reader = house.logged_in("rad")
    headers = {"X-CSRF-Token": reader.csrf(), "Content-Type": "application/octet-stream"}

    page = reader.get("/rules", params={"study": study.study_uid})
    assert page.status_code == 200
    assert "Read by demo" in page.text
    answer = reader.post("/rules/file", content=_file()[:60_000], headers=headers)
    assert answer.status_code == 200
    assert "Read by demo" in answer.text
    assert reader.post("/rules/file", content=b"rubbish", headers=headers).status_code == 422
    headers["Content-Type"] = "text/plain"
    assert reader.post("/rules/file", content=b"x", headers=headers).status_code == 415
    assert house.logged_in("view").get("/rules").status_code == 403
