"""Codes for why a row waits or ended, beside the sentences for people; separate columns for why a running job
waits and why it ended, and for an agent's outcome and its step. All nullable: rows of older workers hold null."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("jobs", "reason_code"),
    ("jobs", "wait_reason"),
    ("job_agents", "reason_code"),
    ("job_agents", "outcome"),
)


def upgrade() -> None:
    for table, column in _COLUMNS:
        op.add_column(table, sa.Column(column, sa.Text(), nullable=True), schema="provisioner")


def downgrade() -> None:
    for table, column in _COLUMNS:
        op.drop_column(table, column, schema="provisioner")
