"""Layers of templates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"
SCOPES = "scope IN ('organization', 'gateway', 'board', 'role', 'agent')"


def upgrade() -> None:
    now = sa.func.now()
    moment = sa.DateTime(timezone=True)
    layer = ("scope", "target_id", "name")

    def template() -> list[sa.Column[str]]:
        return [sa.Column(column, sa.Text(), nullable=False) for column in layer]

    op.create_table(
        "template_versions",
        *template(),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("plain", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("set_by", sa.Text(), nullable=True),
        sa.Column("set_at", moment, server_default=now, nullable=False),
        sa.PrimaryKeyConstraint(*layer, "version", name="template_versions_pkey"),
        sa.CheckConstraint(SCOPES, name="template_versions_scope_check"),
        sa.CheckConstraint("version > 0", name="template_versions_version_check"),
        sa.CheckConstraint("octet_length(body) <= 65536", name="template_versions_body_check"),
        schema=SCHEMA,
    )
    op.create_index("template_versions_sha256_idx", "template_versions", ["sha256"], schema=SCHEMA)
    op.create_table(
        "template_promotions",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        *template(),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("before", sa.BigInteger(), nullable=True),
        sa.Column("promoted_by", sa.Text(), nullable=True),
        sa.Column("since", moment, server_default=now, nullable=False),
        sa.Column("until", moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name="template_promotions_pkey"),
        sa.CheckConstraint(SCOPES, name="template_promotions_scope_check"),
        schema=SCHEMA,
    )
    op.create_index(
        "template_promotions_current_idx",
        "template_promotions",
        list(layer),
        unique=True,
        postgresql_where=sa.text("until IS NULL"),
        schema=SCHEMA,
    )
    op.create_table(
        "template_pins",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        *template(),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("pinned_by", sa.Text(), nullable=True),
        sa.Column("pinned_at", moment, server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", *layer, name="template_pins_pkey"),
        sa.CheckConstraint(SCOPES, name="template_pins_scope_check"),
        schema=SCHEMA,
    )
    op.create_table(
        "override_forms",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("target_id", sa.Text(), nullable=False),
        sa.Column("plain", sa.Boolean(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=True),
        sa.Column("set_at", moment, server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("scope", "target_id", name="override_forms_pkey"),
        sa.CheckConstraint(SCOPES, name="override_forms_scope_check"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("override_forms", "template_pins", "template_promotions", "template_versions"):
        op.drop_table(table, schema=SCHEMA)
