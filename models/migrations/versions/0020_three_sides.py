"""The renderings that were delivered, and whose each file is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"


def upgrade() -> None:
    now = sa.func.now()
    op.add_column(
        "agent_files",
        sa.Column("mixed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema=SCHEMA,
    )
    op.add_column("workers", sa.Column("revision", sa.Text(), nullable=True), schema=SCHEMA)
    op.create_table(
        "file_texts",
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("gateway_id", "sha256", name="file_texts_pkey"),
        schema=SCHEMA,
    )
    op.create_table(
        "file_owners",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("target_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("scope", "target_id", "name", name="file_owners_pkey"),
        sa.CheckConstraint("scope IN ('gateway', 'board')", name="file_owners_scope_check"),
        sa.CheckConstraint("owner IN ('ours', 'merged', 'agent')", name="file_owners_owner_check"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("file_owners", schema=SCHEMA)
    op.drop_table("file_texts", schema=SCHEMA)
    op.drop_column("workers", "revision", schema=SCHEMA)
    op.drop_column("agent_files", "mixed", schema=SCHEMA)
