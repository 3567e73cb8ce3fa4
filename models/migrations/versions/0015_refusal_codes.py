"""Codes for why the roster writer refuses a change, beside the sentence. Null in intents that were not refused, and in those
that older workers refuse."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("roster_intents", sa.Column("reason_code", sa.Text(), nullable=True), schema="provisioner")


def downgrade() -> None:
    op.drop_column("roster_intents", "reason_code", schema="provisioner")
