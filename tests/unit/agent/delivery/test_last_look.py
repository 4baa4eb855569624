"""What the outbox looks at before every push: switches, files, and whose study it is."""

from __future__ import annotations

from typing import Any

import pytest
from factories import outbox as make

from db.models import Study
from db.states import DeliveryState, StudyState
from dicom_nodes.answers import HeldStudy
from dicom_nodes.errors import PeerUnavailable

Bench = Any  # tests/unit/agent/delivery/conftest.py


def test_a_destination_no_longer_configured_is_a_dead_letter(bench: Bench) -> None:
    """Its rows do not wait for ever for something that may never come back."""
    bench.enqueue(("sr",), destinations=[make.destination("old-pacs")])
    bench.run()
    assert bench.row().state == DeliveryState.DEAD
    assert "old-pacs is not configured any more" in bench.row().last_error


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"patient_id": "ANOTHER"}, "patient ID"),
        ({"accession_number": "ANOTHER"}, "accession number"),
        ({"issuer_of_patient_id": "ANOTHER"}, "issuer of patient ID"),
        ({"study_uid": "1.2.3"}, "Study Instance UID"),
    ],
)
def test_a_changed_identity_stops_the_push(
    bench: Bench, change: dict[str, str], named: str
) -> None:
    """The study's record was corrected after the analysis: nothing goes out, somebody is told."""
    study = bench.enqueue(("sr",))
    with bench.sessions.begin() as session:
        for column, value in change.items():
            setattr(session.get_one(Study, study.id), column, value)
    bench.run()
    assert bench.pacs.sent == []
    assert bench.row().state == DeliveryState.DEAD
    assert named in bench.row().last_error
    assert "ANOTHER" not in bench.row().last_error
    assert len(bench.events(study, "delivery_dead")) == 1


@pytest.mark.parametrize(
    ("held", "pushed"),
    [
        (None, True),
        (HeldStudy("PAT0001", "HOSP", "ACC0001"), True),
        (HeldStudy("PAT0001 ", None, None), True),
        (HeldStudy("PAT0001", "", ""), True),
        (HeldStudy(None, None, None), True),
        (HeldStudy("PAT0002", "HOSP", "ACC0001"), False),
        (HeldStudy("", None, None), False),
        (HeldStudy("PAT0001", "OTHER", "ACC0001"), False),
        (HeldStudy("PAT0001", "HOSP", "ACC0002"), False),
    ],
)
def test_the_destination_must_hold_the_study_under_the_same_identity(
    bench: Bench, held: HeldStudy | None, pushed: bool
) -> None:
    """What it does not know or say is passed; what it says differently stops the push."""
    bench.enqueue(
        ("sr",), patient_id="PAT0001", issuer_of_patient_id="HOSP", accession_number="ACC0001"
    )
    bench.pacs.on_held = lambda _: held
    bench.run()
    assert bool(bench.pacs.sent) is pushed
    assert (bench.row().state == DeliveryState.DELIVERED) is pushed


def test_the_destination_is_not_asked_when_the_check_is_off(bench: Bench) -> None:
    """For nodes that only store."""
    asked: list[str] = []
    bench.enqueue(("sr",))
    bench.pacs.on_held = lambda uid: asked.append(uid)
    bench.run(check_identity=False)
    assert asked == []
    assert bench.row().state == DeliveryState.DELIVERED


def test_a_destination_that_cannot_be_asked_gets_nothing(bench: Bench) -> None:
    """No answer about identity is no permission to push."""

    def down(_: str) -> None:
        raise PeerUnavailable("PACS: no connection")

    bench.enqueue(("sr",))
    bench.pacs.on_held = down
    bench.run()
    assert bench.pacs.sent == []
    assert bench.row().state == DeliveryState.PENDING


def test_a_lost_result_file_is_a_dead_letter(bench: Bench) -> None:
    """Trying again does not bring it back; the message names no path."""
    bench.enqueue(("sr",))
    (path,) = bench.results.rglob("sr.dcm")
    path.unlink()
    bench.run()
    assert bench.row().state == DeliveryState.DEAD
    assert "result file cannot be read" in bench.row().last_error
    assert str(path.name) not in bench.row().last_error


def test_a_file_that_holds_another_object_is_not_sent(bench: Bench) -> None:
    """The record's SOP Instance UID decides."""
    bench.enqueue(("sr", "seg"))
    (sr,) = bench.results.rglob("sr.dcm")
    (seg,) = bench.results.rglob("seg.dcm")
    sr.write_bytes(seg.read_bytes())
    bench.run()
    assert bench.states()["sr"] == DeliveryState.DEAD


def test_shadow_rows_are_never_sent(bench: Bench) -> None:
    """Recorded, not pushed; the study is done."""
    study = bench.enqueue(("sr", "seg"), destinations=[make.destination(shadow=True)])
    assert bench.run() == 0
    assert bench.pacs.sent == []
    assert set(bench.states().values()) == {DeliveryState.SHADOW}
    assert bench.study(study).state == StudyState.DONE
    assert bench.study(study).reason == "shadow mode: 2 results recorded, none pushed"


def test_shadow_mode_switched_on_later_stops_what_waits(bench: Bench) -> None:
    """The switch counts at the time of the push."""
    study = bench.enqueue(("sr",))
    bench.run(shadow=True)
    assert bench.pacs.sent == []
    assert bench.row().state == DeliveryState.SHADOW
    assert bench.study(study).state == StudyState.DONE
