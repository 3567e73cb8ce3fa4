"""An index for pruning: without it, each batch of ended jobs is looked for in the whole table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"


def upgrade() -> None:
    op.create_index(
        "jobs_finished_idx",
        "jobs",
        ["finished_at", "id"],
        schema=SCHEMA,
        postgresql_where=sa.text("status NOT IN ('queued', 'running')"),
    )


def downgrade() -> None:
    op.drop_index("jobs_finished_idx", "jobs", schema=SCHEMA)
