"""Why a schedule's last due run was not started."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sync_schedules", sa.Column("note", sa.Text(), nullable=True), schema="provisioner")
