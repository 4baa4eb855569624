"""What the worklist page is sorted, searched and shown by; the level a reader set."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COLUMNS = {
    "study": ("found", "human_level", "human_revision"),
    "analysis": ("summary",),
}
INDEXES = {
    "ix_study_place": ("study", ["reading_state", "priority", "first_instance_at", "id"]),
    "ix_study_ordered_place": (
        "study",
        ["reading_state", "priority", "ordered_priority", "first_instance_at", "id"],
    ),
    "ix_study_patient": ("study", ["patient_id", "issuer_of_patient_id"]),
    "ix_analysis_created_at": ("analysis", ["created_at"]),
}


def upgrade() -> None:
    op.add_column("study", sa.Column("found", sa.Text(), nullable=False, server_default=""))
    op.add_column(
        "study", sa.Column("human_level", sa.String(16), nullable=False, server_default="")
    )
    op.add_column(
        "study", sa.Column("human_revision", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column("analysis", sa.Column("summary", sa.Text(), nullable=False, server_default=""))
    for name, (table, columns) in INDEXES.items():
        op.create_index(name, table, columns)
    _fill(op.get_bind())


def downgrade() -> None:
    for name, (table, _columns) in INDEXES.items():
        op.drop_index(name, table)
    for table, columns in COLUMNS.items():
        for column in columns:
            op.drop_column(table, column)


def _fill(connection: sa.Connection) -> None:
    """Names of the findings of what was analysed before; one study's rows at a time."""
    newest = sa.text("SELECT study_id, MAX(revision) FROM analysis GROUP BY study_id")
    of_study = sa.text("SELECT findings FROM analysis WHERE study_id = :study AND revision = :n")
    update = sa.text("UPDATE study SET found = :found WHERE id = :study")
    for study, revision_ in connection.execute(newest).all():
        rows = connection.execute(of_study, {"study": study, "n": revision_}).scalars()
        names = "\n".join(sorted({name for text in rows for name in _present(text)}))
        if names:
            connection.execute(update, {"study": study, "found": names})


def _present(findings: str) -> list[str]:
    try:
        said: list[Any] = json.loads(findings)["findings"]
    except (ValueError, KeyError, TypeError):  # a row that nobody can read finds nothing
        return []
    return [f"{f.get('display', '')}\n{f.get('label', '')}".casefold() for f in said if _above(f)]


def _above(finding: dict[str, Any]) -> bool:
    values: dict[str, Any] = defaultdict(float, finding)
    if values.get("score") is not None:
        return bool(values["score"] >= 0)
    return bool(values["probability"] > values["threshold"])
