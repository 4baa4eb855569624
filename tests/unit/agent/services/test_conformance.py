"""The conformance statement names what the port serves."""

from __future__ import annotations

from pathlib import Path

from factories import rows

from agent import worklist_scp
from agent.clock import utc_now
from agent.services.availability import Notices
from agent.services.performed_steps import PerformedSteps
from agent.settings import PrioritySettings
from agent.workitems.service import Workitems
from dicom_nodes.scp import commitment, dispatch, ups


def test_every_service_on_the_port_is_in_the_conformance_statement(
    tmp_path: Path, repository: Path
) -> None:
    """A SOP class that is accepted and not declared is a surprise to an integrator."""
    sessions = rows.sessions(tmp_path)
    service = dispatch.combine(
        [
            worklist_scp.service(sessions, PrioritySettings(), utc_now),
            PerformedSteps(sessions).service(),
            Notices(sessions).service(),
            commitment.service(lambda *_: 0, lambda _: 0),
            ups.service(Workitems(sessions), lambda _: True),
        ]
    )
    text = (repository / "docs" / "dicom-conformance.md").read_text()

    served = {str(context.abstract_syntax) for context in service.contexts}

    assert len(served) == 8
    assert {uid for uid in served if f"| {uid}" not in text} == set()
