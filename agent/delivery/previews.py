"""What a destination would be told of a study now; sends nothing, records nothing."""

from __future__ import annotations

from sqlalchemy.orm import Session

from agent import operations
from agent.clock import utc_now
from agent.delivery import announcements, registry
from agent.delivery.announcements import Kind
from agent.errors import DeliveryError
from agent.settings import Destination
from db.models import Delivery
from db.queries import announcements as rows


def preview(
    session: Session, study: str, destination: Destination, kind: Kind, *, unsupported: bool = False
) -> str:
    """The message of a destination about a study (id or UID), as text.

    Args:
        session: to read the rows.
        study: id or UID.
        destination: who would be told.
        kind: priority or report.
        unsupported: of `[report] push_unsupported`.

    Raises:
        AgentError: no such study, or it was not analysed.
    """
    found = operations.find_study(session, study)
    analyses = rows.current_analyses(session, found)
    if not analyses:
        raise DeliveryError(
            f"study {found.id} was not analysed: there is nothing to tell yet", permanent=True
        )
    row = Delivery(
        study_id=found.id,
        analysis_id=analyses[-1].id,
        destination=destination.name,
        kind=kind,
        subject=announcements.control_id(analyses[-1].id, kind),
        identity="",
        attempts=0,
        created_at=utc_now(),
    )
    announcement = announcements.build(session, row, unsupported=unsupported)
    return registry.message_channel(destination).preview(announcement)
