"""Webhooks of organizations, what they are to be told, and the name of the webhook that a job gives."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("jobs", sa.Column("webhook", sa.Text(), nullable=True), schema="provisioner")
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("created_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("not_before", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_success_at", moment, nullable=True),
        sa.Column("last_failure_at", moment, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="webhooks_pkey"),
        sa.UniqueConstraint("organization_id", "name", name="webhooks_organization_id_name_key"),
        schema="provisioner",
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", moment, server_default=sa.func.now(), nullable=True),
        sa.Column("answer", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("finished_at", moment, nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'failed')", name="webhook_deliveries_status_check"
        ),
        sa.PrimaryKeyConstraint("job_id", name="webhook_deliveries_pkey"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["provisioner.jobs.id"], name="webhook_deliveries_job_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["provisioner.webhooks.id"],
            name="webhook_deliveries_webhook_id_fkey",
            ondelete="CASCADE",
        ),
        schema="provisioner",
    )
    op.create_index(
        "webhook_deliveries_due_idx",
        "webhook_deliveries",
        ["webhook_id", "next_attempt_at"],
        schema="provisioner",
        postgresql_where=sa.text("status = 'pending'"),
    )


def downgrade() -> None:
    op.drop_table("webhook_deliveries", schema="provisioner")
    op.drop_table("webhooks", schema="provisioner")
    op.drop_column("jobs", "webhook", schema="provisioner")
