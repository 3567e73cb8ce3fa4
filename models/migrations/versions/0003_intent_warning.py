"""A roster change's warning for the operator, which its job passes on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("roster_intents", sa.Column("warning", sa.Text(), nullable=True), schema="provisioner")
