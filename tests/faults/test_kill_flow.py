"""Killed beside the straight way: in the first series, between two packs, with the draft."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from factories import agent_process, hospital
from factories.agent_process import AgentProcess, DieAt
from factories.hospital import Scanner

from agent.demo.pacs import EmbeddedPacs
from db.models import Analysis, Delivery, Draft, Result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHAIN = (
    DieAt("agent.analysis.provisional:ProvisionalRoom._analyse", "after"),
    DieAt("agent.analysis.room:AnalysisRoom._commit", "after", 1),
    DieAt("agent.composing:ComposingRoom._keep_draft", "after"),
)


def test_emergency_of_two_packs_is_killed_at_every_turn_and_delivered_once(
    pack: Path, pacs: EmbeddedPacs, tmp_path: Path
) -> None:
    """One provisional report, one analysis and one set of objects a pack, one draft."""
    agent = AgentProcess(
        tmp_path / "agent",
        pack,
        [agent_process.dicom("pacs", pacs.port)],
        assembly={
            "quiet_s": 3600.0,
            "ceiling_s": 15.0,  # counts on over restarts, and leaves time for the first series
            "provisional": [{"ordered_priority": "STAT"}],
            "provisional_quiet_s": 0.3,
        },
        packs={"second": {"path": str(pack), "shadow": False}},
        routing={"rules": [{"name": "both", "packs": ["test", "second"]}]},
        report={"enabled": True},
    )
    one = hospital.sample(tmp_path, "1", RequestedProcedurePriority="STAT")
    try:
        with Scanner(agent, [one]) as scanner:
            for place in CHAIN:
                agent.start(place, wait=False)
                agent.wait_for_death()
            agent.start()
            scanner.wait()
            agent.wait_until([one.study_uid])
            agent.stop()
        _assert_each_once(agent, pacs, one.study_uid)
    finally:
        agent_process.clean_up(agent)


def _assert_each_once(agent: AgentProcess, pacs: EmbeddedPacs, study_uid: str) -> None:
    study = agent.study(study_uid)
    with agent.reading() as session:
        analyses = (
            session.execute(sa.select(Analysis).order_by(Analysis.created_at)).scalars().all()
        )
        results = session.execute(sa.select(Result)).scalars().all()
        delivered = sa.select(Delivery.subject).where(Delivery.state == "delivered")
        sent = set(session.execute(delivered).scalars())
        drafts = session.execute(sa.select(Draft)).scalars().all()
    early = [a for a in analyses if a.provisional]
    assert [(a.revision, a.pack) for a in early] in ([], [(0, "test")])  # a slow machine: none
    full = [(a.revision, a.pack) for a in analyses if not a.provisional]
    assert full == [(1, "test"), (1, "second")]
    kinds = Counter((r.analysis_id, r.kind, r.label) for r in results)
    assert set(kinds.values()) == {1}
    ids = {a.id for a in analyses if not a.provisional}
    current = {r.sop_uid for r in results if r.analysis_id in ids}
    assert {r.kind for r in results if r.analysis_id in ids} == {"sr", "sc", "seg", "pm"}
    assert len(current) == 8
    assert {held.sop_instance_uid for held in pacs.objects(study_uid)} == sent >= current
    assert (study.revision, study.priority) == (1, "STAT")
    assert [(d.state, d.source) for d in drafts] == [("done", "template")]
    hospital.assert_whole(agent)
