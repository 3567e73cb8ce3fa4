"""What jobs replaced in agents' files and entries, and what agents keep as it was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

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
    op.create_table(
        "entry_changes",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("fields", JSONB(), nullable=False),
        sa.Column("unkept", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("changed_at", moment, server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "agent_id", name="entry_changes_pkey"),
        schema=SCHEMA,
    )
    op.create_index("entry_changes_agent_idx", "entry_changes", ["agent_id", "changed_at"], schema=SCHEMA)
    op.create_index("entry_changes_changed_at_idx", "entry_changes", ["changed_at"], schema=SCHEMA)
    op.create_table(
        "held_fields",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("value", JSONB(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("held_by", sa.Text(), nullable=True),
        sa.Column("since", moment, server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "gateway_id", "field", name="held_fields_pkey"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("held_fields", schema=SCHEMA)
    op.drop_table("entry_changes", schema=SCHEMA)
    op.drop_table("file_changes", schema=SCHEMA)
    op.drop_table("held_files", schema=SCHEMA)
