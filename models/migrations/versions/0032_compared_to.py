"""How far a sync has compared its agents with what is on record of them, so that a worker that takes it over
goes on there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("compared_to", sa.Integer(), nullable=True), schema=SCHEMA)


def downgrade() -> None:
    op.drop_column("jobs", "compared_to", schema=SCHEMA)
