"""What jobs replaced in agents' files, and files that agents keep as they were."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"


def upgrade() -> None:
    now, moment = sa.func.now(), sa.DateTime(timezone=True)
    op.create_table(
        "held_files",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("held_by", sa.Text(), nullable=True),
        sa.Column("sources", sa.Text(), nullable=True),
        sa.Column("since", moment, server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "gateway_id", "name", name="held_files_pkey"),
        sa.CheckConstraint("cause IN ('rollback', 'roll_out')", name="held_files_cause_check"),
        schema=SCHEMA,
    )
    op.create_table(
        "file_changes",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("former_sha256", sa.Text(), nullable=True),
        sa.Column("written_sha256", sa.Text(), nullable=False),
        sa.Column("text_sha256", sa.Text(), nullable=True),
        sa.Column("unkept", sa.Text(), nullable=True),
        sa.Column("changed_at", moment, server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "agent_id", "name", name="file_changes_pkey"),
        sa.CheckConstraint("unkept IN ('secret', 'long', 'not_text')", name="file_changes_unkept_check"),
        schema=SCHEMA,
    )
    op.create_index("file_changes_agent_idx", "file_changes", ["agent_id", "changed_at"], schema=SCHEMA)
    op.create_index("file_changes_changed_at_idx", "file_changes", ["changed_at"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("file_changes", schema=SCHEMA)
    op.drop_table("held_files", schema=SCHEMA)
