"""Times in which a gateway's agents may be disturbed, and times in which they may not."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"


def upgrade() -> None:
    op.create_table(
        "sync_windows",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("effect", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("duration", sa.Interval(), nullable=False),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("everything", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("effect IN ('allow', 'deny')", name=op.f("sync_windows_effect_check")),
        sa.PrimaryKeyConstraint("id", name="sync_windows_pkey"),
        schema=SCHEMA,
    )
    op.create_index("sync_windows_gateway_idx", "sync_windows", ["gateway_id"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("sync_windows", schema=SCHEMA)
