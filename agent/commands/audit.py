"""`worklist-agent audit`: who looked at what."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated, Any

import typer

from agent.commands import common

app = typer.Typer(
    help="The audit trail. It names patients by ID; reading it is audited too.",
    no_args_is_help=True,
)

COLUMNS = ("at", "kind", "who", "role", "address", "study_key", "detail", "outcome", "sent")
DaysOption = Annotated[
    float | None, typer.Option(min=0, help="Only the last so many days.", show_default=False)
]


@app.command("list")
def listing(
    days: DaysOption = None,
    who: Annotated[str, typer.Option(help="Only this person or machine.")] = "",
    kind: Annotated[str, typer.Option(help="Only this kind, e.g. login_failed.")] = "",
    study: Annotated[str, typer.Option(help="Only this Study Instance UID.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 100,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """List events, newest first."""
    from agent.audit.kinds import Kind
    from db.queries import audit

    if kind and kind not in list(Kind):
        common.fail(f"no kind {kind!r}; kinds are: {', '.join(Kind)}", common.ExitCode.USAGE)
    with common.database(common.load_config(config)) as sessions, sessions.begin() as session:
        events = audit.listing(
            session, since=_since(days), who=who, kind=kind, study_uid=study, limit=limit
        )
        rows = [_row(event) for event in events]
        _note_use(session, "audit list")
    common.show(rows, as_json=as_json, title="audit", columns=COLUMNS)


@app.command("export")
def export(
    days: DaysOption = None,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="As DICOM audit messages (XML) instead of JSON.")
    ] = False,
    config: common.ConfigOption = None,
) -> None:
    """Print all events, oldest first, one a line."""
    import os
    import socket

    from agent.audit.messages import Source, xml
    from db.queries import audit

    loaded = common.load_config(config)
    settings, ae_title = loaded.audit, loaded.dicom.ae_title
    source = Source(settings.source_id, settings.site, ae_title, socket.gethostname(), os.getpid())
    with common.database(loaded) as sessions:
        with sessions.begin() as session:
            _note_use(session, "audit export")
        with sessions() as session:
            for event in audit.export(session, since=_since(days)):
                typer.echo(xml(event, source).decode() if dicom else json.dumps(_row(event)))


def _since(days: float | None) -> dt.datetime | None:
    from agent.clock import utc_now

    return utc_now() - dt.timedelta(days=days) if days is not None else None


def _note_use(session: Any, detail: str) -> None:
    from agent.access.accounts import OPERATOR
    from agent.audit.kinds import Kind, Occurrence
    from agent.audit.record import record
    from agent.clock import utc_now

    record(session, Occurrence(Kind.AUDIT_USED, OPERATOR, detail=detail), utc_now())


def _row(event: Any) -> dict[str, Any]:
    return {
        "id": event.id,
        "at": event.at.isoformat(timespec="milliseconds"),
        "kind": event.kind,
        "who": event.who,
        "role": event.role,
        "address": event.address,
        "study_uid": event.study_uid,
        "study_key": event.study_key,
        "patient_id": event.patient_id,
        "detail": event.detail,
        "outcome": event.outcome,
        "sent": event.sent_at.isoformat(timespec="seconds") if event.sent_at else None,
    }
