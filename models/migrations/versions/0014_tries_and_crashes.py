"""How often a row's tries failed, and how many workers died at it, each in a column of its own. The older
``attempts`` counts only the second, and is still written as well."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TABLES = ("jobs", "job_agents")
_COLUMNS = ("tries", "crashes")


def upgrade() -> None:
    for table in _TABLES:
        for column in _COLUMNS:
            op.add_column(
                table,
                sa.Column(column, sa.Integer(), server_default="0", nullable=False),
                schema="provisioner",
            )


def downgrade() -> None:
    for table in _TABLES:
        for column in _COLUMNS:
            op.drop_column(table, column, schema="provisioner")
