"""Announcements: rows put in with the news, told newest only, stopped when the patient changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from factories import outbox as make
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent.delivery import announcements, outbox
from agent.delivery.announcements import Announcement, Kind
from agent.delivery.registry import Route
from agent.delivery.sender import Outbox
from agent.settings import DeliverySettings, Destination, Level
from db.models import Analysis, Delivery, Study
from db.queries import delivery_claims
from dicom_nodes.errors import PeerBusy

ENGINE = Destination(name="engine", kind="hl7", shadow=False)


@dataclasses.dataclass
class FakeMessages:
    """A message channel that remembers, or obeys."""

    on_announce: Callable[[Announcement], None] = lambda _announcement: None
    told: list[Announcement] = dataclasses.field(default_factory=list)

    def announce(self, announcement: Announcement) -> None:
        """Take it."""
        self.on_announce(announcement)
        self.told.append(announcement)

    def preview(self, announcement: Announcement) -> str:
        """Its control id."""
        return announcement.control_id

    def check(self) -> None:
        """Always there."""


@dataclasses.dataclass
class Bench:
    """A record, a clock, a channel and the outbox between them."""

    sessions: sessionmaker[Session]
    folder: Path
    clock: make.Clock = dataclasses.field(default_factory=make.Clock)
    channel: FakeMessages = dataclasses.field(default_factory=FakeMessages)

    def study(self, **values: Any) -> tuple[int, str]:
        """A study whose bleed was just found."""
        given = {"priority": "STAT", "ordered_priority": "ROUTINE", **values}
        with self.sessions.begin() as session:
            study = rows.study(session, **given)
            return study.id, rows.analysis(session, study).id

    def announce(self, ids: tuple[int, str], *destinations: Destination, **values: Any) -> int:
        """Put the news in; how many rows that made."""
        with self.sessions.begin() as session:
            study, analysis = session.get_one(Study, ids[0]), session.get_one(Analysis, ids[1])
            given = {"ordered": Level.LOW, **values}
            wanted = destinations or (ENGINE,)
            return len(outbox.announce(session, study, analysis, wanted, self.clock(), **given))

    def change(self, ids: tuple[int, str], **values: Any) -> None:
        """Change the study's row."""
        with self.sessions.begin() as session:
            session.execute(sa.update(Study).where(Study.id == ids[0]).values(**values))

    def deliver(self, *, unsupported: bool = False) -> None:
        """Deal with all that is due."""
        settings = DeliverySettings(first_retry_s=5, jitter=0)
        routes = {"engine": Route(self.channel)}
        given = {"clock": self.clock, "unsupported": unsupported}
        Outbox(self.sessions, routes, settings, self.folder, **given).run_once()

    def states(self) -> list[str]:
        """Of all rows, oldest first."""
        with self.sessions() as session:
            return list(session.execute(sa.select(Delivery.state).order_by(Delivery.id)).scalars())

    def last_error(self) -> str:
        """Of the newest row."""
        with self.sessions() as session:
            query = sa.select(Delivery.last_error).order_by(Delivery.id.desc()).limit(1)
            return session.execute(query).scalar_one()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty record."""
    return Bench(rows.sessions(tmp_path), tmp_path)


def test_news_is_told_from_the_rows_as_they_are(bench: Bench) -> None:
    """Level, reason, findings and whose study it is; the control id is the row's."""
    ids = bench.study(priority_reason="bleed 94%")
    assert bench.announce(ids) == 1
    bench.change(ids, priority_reason="bleed 95%")
    bench.deliver()

    (told,) = bench.channel.told
    assert (told.kind, told.priority.level, told.priority.reason) == (
        Kind.PRIORITY,
        Level.STAT,
        "bleed 95%",
    )
    assert [f.label for f in told.findings] == [rows.HEMORRHAGE]
    assert told.control_id == announcements.control_id(ids[1], "priority")
    assert len(told.control_id) == 20
    assert bench.states() == ["delivered"]


def test_the_same_news_is_one_row_and_newer_news_replaces_it(bench: Bench) -> None:
    """Committing again adds nothing; what nobody sent yet is superseded by the next."""
    ids = bench.study()
    bench.announce(ids)
    bench.announce(ids)
    assert bench.states() == ["pending"]
    bench.announce(ids, occasion="order 2")

    assert bench.states() == ["superseded", "pending"]


@pytest.mark.parametrize(
    ("level", "ordered", "told_before", "told"),
    [
        (Level.STAT, Level.LOW, False, True),
        (Level.STAT, Level.STAT, False, False),
        (Level.MEDIUM, None, False, True),
        (Level.LOW, None, False, False),
        (Level.LOW, Level.LOW, True, True),
    ],
)
def test_only_what_is_above_the_order_is_news(
    level: Level, ordered: Level | None, told_before: bool, told: bool
) -> None:
    """Or a correction of what was told before."""
    assert announcements.worth_telling(level, ordered, told_before=told_before) is told


def test_a_destination_may_want_every_level(bench: Bench) -> None:
    """`only_raised = false`; reports go out in any case; unwanted kinds do not."""
    ids = bench.study(priority="LOW")
    everything = ENGINE.model_copy(update={"name": "all", "only_raised": False})
    reports = ENGINE.model_copy(update={"name": "reports", "send": ("report",)})

    assert bench.announce(ids, ENGINE, everything, reports, make.destination()) == 1
    assert bench.announce(ids, ENGINE, everything, reports, kind=Kind.REPORT) == 3


def test_shadow_mode_records_and_replaces_nothing(bench: Bench) -> None:
    """Of a pack or of a destination."""
    ids = bench.study()
    bench.announce(ids)
    bench.announce(ids, occasion="second pack", shadow=True)
    bench.announce(bench.study(), ENGINE.model_copy(update={"shadow": True}))
    bench.deliver()

    assert bench.states() == ["delivered", "shadow", "shadow"]


@pytest.mark.parametrize("changed", [{"patient_id": "NEW"}, {"accession_number": "NEW"}])
def test_a_changed_identity_stops_the_message(bench: Bench, changed: dict[str, str]) -> None:
    """A merge between the news and its sending: a dead letter, in words without the patient."""
    ids = bench.study()
    bench.announce(ids)
    bench.change(ids, **changed)
    bench.deliver()

    assert bench.channel.told == []
    assert bench.states() == ["dead"]
    assert "changed since it was analysed" in bench.last_error()
    assert "NEW" not in bench.last_error()


def test_a_retry_carries_the_same_control_id(bench: Bench) -> None:
    """So that the receiver can tell; a transient refusal waits its turn."""
    seen: list[tuple[str, int]] = []

    def busy(announcement: Announcement) -> None:
        seen.append((announcement.control_id, announcement.attempt))
        if len(seen) == 1:
            raise PeerBusy("the receiver answered AE; will try again")

    bench.channel.on_announce = busy
    bench.announce(bench.study())
    bench.deliver()
    assert bench.states() == ["pending"]
    bench.clock.forward(seconds=6)
    bench.deliver()

    assert [attempt for _, attempt in seen] == [1, 2]
    assert len({control_id for control_id, _ in seen}) == 1
    assert bench.states() == ["delivered"]


def test_news_of_a_study_waits_for_the_older_news_in_hand(bench: Bench) -> None:
    """Two workers may not overtake each other with yesterday's level."""
    ids = bench.study()
    bench.announce(ids)
    with bench.sessions.begin() as session:
        held = delivery_claims.claim(
            session, owner="a", lease=rows.NOW - rows.minutes_ago(5), now=bench.clock()
        )
    assert held is not None
    bench.announce(ids, occasion="again")
    bench.deliver()
    assert bench.states() == ["sending", "pending"]
    bench.clock.forward(minutes=6)  # the first worker vanished: its lease is over
    bench.deliver()

    assert bench.states() == ["delivered", "delivered"]


@pytest.mark.parametrize("asked", [False, True])
def test_channels_are_told_whether_the_site_wants_unsupported_sentences(
    bench: Bench, asked: bool
) -> None:
    """As the outbox was told; without a word they stay."""
    bench.announce(bench.study(), kind=Kind.REPORT)
    bench.deliver(unsupported=asked)

    assert [told.unsupported for told in bench.channel.told] == [asked]
