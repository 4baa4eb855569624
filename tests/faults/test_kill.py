"""The agent is killed at every step of its work; after a restart nothing is lost or doubled."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from factories import agent_process, hospital, peers
from factories.agent_process import AgentProcess, DieAt
from factories.hospital import Sample, Scanner

from agent.demo.pacs import EmbeddedPacs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: Each chain is one study that is killed at one place after the other on its way, the agent started
#: again in between with the next place armed. "after" is before the caller goes on: in a
#: transaction, or before the answer is sent.
CHAINS: dict[str, Sequence[DieAt]] = {
    "receiving": (
        DieAt("agent.intake.handler:IntakeHandler.store", "before", 3),
        DieAt("agent.intake.spool:Spool.place", "after", 3),
        DieAt("db.queries.intake_usual:Recorder.record", "after", 2),
    ),
    "starting": (
        DieAt("agent.intake.spool:Spool.place", "after", 4),
        DieAt("agent.intake.recovery:reconcile", "before"),
        DieAt("db.queries.intake:record", "after"),
        DieAt("db.queries.claims:release_all_of", "after"),
    ),
    "assembling and routing": (
        DieAt("agent.assembly.sweep:assemble", "after"),
        DieAt("agent.routing.room:RoutingRoom.run", "before"),
        DieAt("agent.routing.room:RoutingRoom.run", "after"),
    ),
    "analysing": (
        DieAt("agent.analysis.process:InferenceProcess.analyse", "before"),
        DieAt("agent.analysis.process:InferenceProcess._answer", "before"),
        DieAt("agent.analysis.room:AnalysisRoom._commit", "before"),
        DieAt("agent.analysis.room:AnalysisRoom._commit", "after"),
    ),
    "composing": (
        DieAt("agent.composing:ComposingRoom._context", "after"),
        DieAt("agent.results.compose:write", "after", 2),
        DieAt("agent.composing:ComposingRoom._commit", "before"),
        DieAt("agent.composing:ComposingRoom._commit", "after"),
    ),
    "delivering": (
        DieAt("agent.delivery.sender:Outbox._send", "before"),
        DieAt("agent.delivery.channels.dicom:DicomChannel.send", "after"),
        DieAt("agent.delivery.sender:Outbox._record", "after"),
    ),
}


@pytest.fixture
def agent(tmp_path: Path, pack: Path, pacs: EmbeddedPacs) -> Iterator[AgentProcess]:
    """An agent that is not started yet."""
    made = AgentProcess(tmp_path / "agent", pack, [agent_process.dicom("pacs", pacs.port)])
    yield made
    agent_process.clean_up(made)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_study_killed_at_every_step_is_delivered_once(
    chain: Sequence[DieAt], agent: AgentProcess, pacs: EmbeddedPacs, tmp_path: Path
) -> None:
    """However often the agent dies there, each object gets to the PACS once."""
    one = hospital.sample(tmp_path, "1")

    with Scanner(agent, [one]) as scanner:
        for place in chain:
            agent.start(place, wait=False)
            agent.wait_for_death()
            hospital.assert_kept(agent, set(scanner.acknowledged))
        agent.start()
        scanner.wait()
        agent.wait_until([one.study_uid])
        agent.stop()

    _assert_nothing_lost(agent, pacs, [one])


@pytest.mark.parametrize("seed", [1])
def test_hospital_killed_at_random_moments_loses_nothing(
    seed: int, agent: AgentProcess, pacs: EmbeddedPacs, tmp_path: Path
) -> None:
    """Several studies at once, on different steps, survive kills at moments nobody chose."""
    chance = random.Random(seed)
    studies = [
        hospital.sample(tmp_path, f"{seed}{number}", modality=chance.choice(["CT", "MR"]))
        for number in range(4)
    ]

    with Scanner(agent, studies) as scanner:
        for _ in range(3):
            agent.start()
            time.sleep(chance.uniform(0.0, 8.0))  # the moment of the kill, not a synchronization
            children = agent.kill()
            hospital.assert_kept(agent, set(scanner.acknowledged))
            hospital.wait_for_end(children)
        agent.start()
        scanner.wait()
        agent.wait_until([one.study_uid for one in studies], timeout_s=180)
        agent.stop()

    _assert_nothing_lost(agent, pacs, studies)


def test_inference_process_ends_with_a_killed_agent(agent: AgentProcess) -> None:
    """No model process stays behind on the GPU when its agent is gone."""
    agent.start()
    children = agent.kill()

    assert children
    hospital.wait_for_end(children)


def test_sigterm_drains_and_the_rest_goes_on_after_the_next_start(
    agent: AgentProcess, pacs: EmbeddedPacs, tmp_path: Path
) -> None:
    """SIGTERM in the middle of work: a clean exit, no child, no lease held, no study lost."""
    studies = [hospital.sample(tmp_path, str(number)) for number in range(3)]
    agent.start()

    with Scanner(agent, studies) as scanner:
        peers.wait_for(
            "a study at work", lambda: {"analysing", "composing"} & set(agent.states().values())
        )
        children = agent.children()
        assert agent.stop() == 0
        hospital.wait_for_end(children)
        leased = [u for u in agent.states() if agent.study(u).lease_owner is not None]
        assert leased == []
        assert agent.events("agent_stopped")

        agent.start()
        scanner.wait()
        agent.wait_until([one.study_uid for one in studies], timeout_s=120)
        agent.stop()

    _assert_nothing_lost(agent, pacs, studies)


def _assert_nothing_lost(
    agent: AgentProcess, pacs: EmbeddedPacs, studies: Sequence[Sample]
) -> None:
    assert set(agent.states().values()) == {"done"}
    for one in studies:
        hospital.assert_kept(agent, one.sop_uids)
        hospital.assert_same_pixels(agent, one)
        hospital.assert_delivered_once(agent, pacs, one.study_uid)
    hospital.assert_whole(agent)
