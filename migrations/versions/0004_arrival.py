"""Performed steps, availability and proof of arrival."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "performed_step",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_uid", sa.String(length=128), nullable=False),
        sa.Column("study_uid", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created", sa.Boolean(), nullable=False),
        sa.Column("calling_ae", sa.String(length=64), nullable=False),
        sa.Column("references", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_performed_step")),
        sa.UniqueConstraint("sop_uid", "study_uid", name=op.f("uq_performed_step_sop_uid")),
    )
    op.create_index(op.f("ix_performed_step_study_uid"), "performed_step", ["study_uid"])
    op.create_table(
        "availability_notice",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_uid", sa.String(length=128), nullable=False),
        sa.Column("study_uid", sa.String(length=128), nullable=False),
        sa.Column("calling_ae", sa.String(length=64), nullable=False),
        sa.Column("references", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_availability_notice")),
        sa.UniqueConstraint("sop_uid", name=op.f("uq_availability_notice_sop_uid")),
    )
    op.create_index(op.f("ix_availability_notice_study_uid"), "availability_notice", ["study_uid"])
    op.create_table(
        "commitment_transaction",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("references", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_transaction")),
        sa.UniqueConstraint(
            "transaction_uid",
            "role",
            "peer",
            name=op.f("uq_commitment_transaction_transaction_uid"),
        ),
    )
    op.create_index(
        "ix_commitment_transaction_due",
        "commitment_transaction",
        ["role", "state", "next_attempt_at"],
    )
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.add_column(sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("committed_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(
            sa.Column("proof_attempts", sa.Integer(), nullable=False, server_default="0")
        )


def downgrade() -> None:
    # what was taken but not yet proven is sent again by the older version: the same object, once
    op.execute("UPDATE delivery SET state = 'pending' WHERE state IN ('sent', 'committed')")
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        for name in ("proof_attempts", "seen_at", "committed_at", "sent_at"):
            batch_op.drop_column(name)
    op.drop_table("commitment_transaction")
    op.drop_table("availability_notice")
    op.drop_table("performed_step")
