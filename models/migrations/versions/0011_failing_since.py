"""When a row's current step first failed: the retry budget counts from then."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("jobs", "job_agents"):
        moment = sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True)
        op.add_column(table, moment, schema="provisioner")
