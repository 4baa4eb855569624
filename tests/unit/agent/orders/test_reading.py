"""The site's field mapping: where orders carry what we need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from factories import hl7 as make

from agent import config
from agent.orders import reading
from agent.orders.reading import OrderValues
from agent.settings_hl7 import Hl7Settings
from dicom_nodes.hl7.messages import Message, Segment, text_of


def read(
    *segments: Segment, message_type: str = "OMI^O23", **settings: object
) -> list[OrderValues]:
    """The orders of a message of these segments."""
    text = text_of([make.header(message_type), make.patient(), *segments])
    found = reading.actions(Message.parse(text), Hl7Settings.model_validate(settings))
    return [one for one in found if isinstance(one, OrderValues)]


@pytest.mark.parametrize(
    ("segments", "priority"),
    [
        ([Segment("TQ1").set(9, "S", "STAT", "HL70485"), Segment("OBR").set(18, "A")], "STAT"),
        ([Segment("OBR").set(18, "A").set(27, *[""] * 5, "A")], "HIGH"),
        ([Segment("OBR").set(18, "A").set(5, "R")], "ROUTINE"),
        ([Segment("OBR").set(18, "A").set(5, "t")], "MEDIUM"),
        ([Segment("OBR").set(18, "A").set(5, "URGENT-ED")], "URGENT-ED"),
        ([Segment("OBR").set(18, "A")], ""),
    ],
)
def test_the_priority_is_found_where_it_stands(segments: list[Segment], priority: str) -> None:
    """The first filled place counts; codes become terms of the priority policy."""
    (order,) = read(Segment("ORC").set(1, "NW"), *segments)

    assert order.priority == priority


def test_every_order_of_a_message_is_read_by_itself() -> None:
    """Segments belong to the ORC before them; the patient's location is shared."""
    first = [Segment("ORC").set(1, "NW"), Segment("OBR").set(18, "A1").set(5, "S")]
    second = [Segment("ORC").set(1, "CA"), Segment("OBR").set(18, "A2")]
    ipc = Segment("IPC").set(1, "A9").set(3, "1.2.3")
    found = read(Segment("PV1").set(3, "ED", "R1"), *first, *second, ipc)

    assert [(o.accession_number, o.priority, o.status) for o in found] == [
        ("A1", "STAT", "NW"),
        ("A9", "", "CA"),
    ]
    assert [o.study_uid for o in found] == ["", "1.2.3"]
    assert {o.location for o in found} == {"ED R1"}


def test_the_patient_id_of_the_images_authority_is_taken() -> None:
    """And its issuer in the words of the images."""
    text = make.order().decode().replace("PAT1^^^HOSP", "X1^^^NATIONAL~PAT1^^^HOSP")
    settings = Hl7Settings(patient_authority="HOSP", issuers={"HOSP": "H1"})
    (order,) = reading.actions(Message.parse(text), settings)

    assert isinstance(order, OrderValues)
    assert (order.patient.patient_id, order.patient.issuer) == ("PAT1", "H1")


def test_a_study_uid_that_is_none_names_no_study() -> None:
    """Letters, or too long."""
    for uid in ("abc", "1" * 65, "1..2"):
        (order,) = read(Segment("OBR").set(18, "A"), Segment("ZDS").set(1, uid))
        assert order.study_uid == ""


@pytest.mark.parametrize("page", ["hl7.md", "orders.md"])
def test_the_configuration_of_the_pages_is_accepted(page: str) -> None:
    """What docs/integrate shows can be pasted."""
    text = (Path(__file__).parents[4] / "docs" / "integrate" / page).read_text()
    blocks = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)

    assert blocks
    for block in blocks:
        config.from_mapping(tomllib.loads(block), source=page)
