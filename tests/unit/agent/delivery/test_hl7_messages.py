"""What HL7 destinations are told, held against a validator that is not ours."""

from __future__ import annotations

import warnings

import pytest
from factories import hl7 as make

from agent.delivery.announcements import Announcement, Kind
from agent.delivery.channels import hl7_messages
from agent.settings_hl7 import Hl7Sending
from dicom_nodes.hl7.messages import Message

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.parser import parse_message


def message(told: Announcement | None = None, **settings: object) -> Message:
    """The text, parsed."""
    wanted = Hl7Sending.model_validate(settings)
    return Message.parse(hl7_messages.text(told or make.announcement(), wanted))


@pytest.mark.parametrize("kind", ["ORU^R01", "OMI^O23"])
@pytest.mark.parametrize("version", ["2.5", "2.5.1"])
def test_messages_are_valid(kind: str, version: str) -> None:
    """By hl7apy's tables; a report with a draft as well."""
    settings = Hl7Sending.model_validate({"priority_as": kind, "version": version})
    report = make.announcement(Kind.REPORT, draft=make.draft("Left bleed.", unsupported="Tumor."))
    for told in (make.announcement(), report):
        text = hl7_messages.text(told, settings)
        parsed = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)

        assert parsed.validate()


@pytest.mark.parametrize("kind", ["ORU^R01", "ORM^O01", "OMI^O23"])
def test_every_message_says_whose_study_it_is_and_that_it_is_research(kind: str) -> None:
    """Identifiers escaped and read back, in the fields the standard gives them."""
    found = message(priority_as=kind, receiving_application="ENGINE")

    assert (found.get("PID-3.1"), found.get("PID-3.4")) == ("PAT|1", "HOSP")
    assert [found.get(f"PID-5.{n}") for n in range(1, 6)] == ["Müller", "Ada", "B", "III", "Dr"]
    assert (found.get("ORC-2"), found.get("ORC-3"), found.get("OBR-18")) == ("P1", "F1", "ACC&1")
    assert found.get("MSH-10") == "ABCDEFGHIJ2345672345"
    assert (found.get("MSH-5"), found.get("MSH-18")) == ("ENGINE", "UNICODE UTF-8")
    assert "Research use only" in found.get("NTE-3")


@pytest.mark.parametrize(
    ("kind", "control", "uid"),
    [("ORM^O01", "XO", "ZDS-1"), ("OMI^O23", "XO", "IPC-3"), ("ORU^R01", "RE", "OBX-5")],
)
def test_the_priority_goes_into_the_sites_fields(kind: str, control: str, uid: str) -> None:
    """ORC-7 and OBR-27, TQ1-9 where there is one; study UID where each message carries it."""
    found = message(priority_as=kind)

    assert (found.get("ORC-1"), found.get("ORC-7.6"), found.get("OBR-27.6")) == (control, "S", "S")
    assert found.get("TQ1-9") == ("" if kind == "ORM^O01" else "S")
    assert found.get(uid, 3 if kind == "ORU^R01" else 1) == "1.2.3.4"


def test_the_site_maps_codes_and_fields() -> None:
    """Its own priority codes and places, and constants or values anywhere."""
    codes = {"STAT": "1", "HIGH": "2", "MEDIUM": "3", "LOW": "4"}
    fields = {"OBR-24": "{modality}", "ZPR-1": "{level}:{accession}"}
    found = message(
        priority_as="ORM^O01", priorities=codes, priority_fields=["OBR-5"], fields=fields
    )

    assert (found.get("OBR-5"), found.get("ORC-7.6")) == ("1", "")
    assert (found.get("OBR-24"), found.get("ZPR-1")) == ("CT", "STAT:ACC&1")


def test_a_report_is_preliminary_in_every_line() -> None:
    """Findings by code with certainty, the model, the supported sentences: all of status P."""
    told = make.announcement(Kind.REPORT, draft=make.draft("Left bleed.", unsupported="Tumor."))
    found = message(told)
    count = found.count("OBX")
    values = {found.get("OBX-3", n): found.get("OBX-5", n) for n in range(1, count + 1)}
    texts = [found.get("OBX-5", n) for n in range(1, count + 1)]

    assert found.get("OBR-25") == "P"
    assert {found.get("OBX-11", n) for n in range(1, count + 1)} == {"P"}
    assert [found.get("OBX-1", n) for n in range(1, count + 1)] == [
        str(n) for n in range(1, count + 1)
    ]
    assert values["PRIORITY"] == "S"
    assert values["111012"] == "93.1"
    assert (values["111001"], values["111003"]) == ("demo-head", "1.0.0")
    assert "Left bleed." in texts
    assert "Tumor." not in " ".join(texts)
    assert "1 sentences without support were left out." in texts


def test_a_site_that_asks_for_unsupported_sentences_gets_them_marked() -> None:
    """With the reason; then none is left out."""
    draft = make.draft("Left bleed.", unsupported="Tumor.")
    found = message(make.announcement(Kind.REPORT, draft=draft, unsupported=True))
    texts = [found.get("OBX-5", n) for n in range(1, found.count("OBX") + 1)]

    assert "[UNSUPPORTED: no finding] Tumor." in texts
    assert not any("left out" in text for text in texts)


def test_a_message_that_is_sent_again_is_the_same_to_the_byte() -> None:
    """Nothing in it depends on the moment of sending."""
    settings = Hl7Sending()
    first = hl7_messages.text(make.announcement(), settings)

    assert hl7_messages.text(make.announcement(attempt=7), settings) == first


@pytest.mark.parametrize(
    "wrong",
    [
        {"fields": {"OBR24": "x"}},
        {"fields": {"OBR-24": "{patient}"}},
        {"fields": {"OBR-24": "{"}},
        {"priorities": {"STAT": "S"}},
        {"charset": "KLINGON"},
        {"priority_fields": ["27"]},
    ],
)
def test_a_mapping_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    """At start, not at the first message."""
    with pytest.raises(ValueError, match=r"Hl7Sending"):
        Hl7Sending.model_validate(wrong)
