"""The wake message of an agent that waits to be woken, so that one worker can wake all waiting agents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job_agents", sa.Column("wake", JSONB(), nullable=True), schema="provisioner")
