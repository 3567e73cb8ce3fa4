"""Places of agents that were on their gateway before they came under care."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"


def upgrade() -> None:
    op.add_column(
        "agent_places",
        sa.Column("adopted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_column("agent_places", "adopted", schema=SCHEMA)
