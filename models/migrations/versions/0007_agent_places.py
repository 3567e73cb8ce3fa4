"""Where each agent lives on its gateway, and what a gateway's owner allowed us to rewrite."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"

# An existing agent lives where its stored session key says: on its row's gateway, and on any other gateway on
# which our records still have it. Where two agents claim one id, the board's present lead comes first, then
# the newest row.
_FILL = """
    INSERT INTO provisioner.agent_places (agent_id, gateway_id, openclaw_id, session_key, workspace)
    SELECT DISTINCT ON (known.gateway_id, split_part(a.openclaw_session_id, ':', 2))
        a.id, known.gateway_id, split_part(a.openclaw_session_id, ':', 2), a.openclaw_session_id,
        nullif(rtrim(trim(g.workspace_root), '/'), '') || '/workspace-' || CASE
            WHEN a.board_id IS NULL THEN 'gateway-' || known.gateway_id
            ELSE split_part(a.openclaw_session_id, ':', 2) END
    FROM public_agents a
    JOIN LATERAL (
        SELECT a.gateway_id
        UNION SELECT c.gateway_id FROM provisioner.agent_credentials c WHERE c.agent_id = a.id
        UNION SELECT f.gateway_id FROM provisioner.agent_files f WHERE f.agent_id = a.id
    ) known ON known.gateway_id IS NOT NULL
    JOIN public_gateways g ON g.id = known.gateway_id
    WHERE a.openclaw_session_id ~ '^agent:(mc|lead)-[a-z0-9-]+:main$'
    ORDER BY known.gateway_id, split_part(a.openclaw_session_id, ':', 2),
        (a.openclaw_session_id = 'agent:lead-' || a.board_id || ':main' AND a.is_board_lead) DESC NULLS LAST,
        a.created_at DESC, a.id
"""


def upgrade() -> None:
    op.create_table(
        "agent_places",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("openclaw_id", sa.Text(), nullable=False),
        sa.Column("session_key", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="agent_places_pkey"),
        schema=SCHEMA,
    )
    op.create_index(
        "agent_places_live_key",
        "agent_places",
        ["gateway_id", "openclaw_id"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("until IS NULL"),
    )
    op.create_index("agent_places_agent_id_idx", "agent_places", ["agent_id"], schema=SCHEMA)
    op.add_column("gateway_states", sa.Column("allowed_rewrites", JSONB(), nullable=True), schema=SCHEMA)
    op.add_column("gateway_states", sa.Column("down_at", sa.Text(), nullable=True), schema=SCHEMA)
    connection = op.get_bind()
    found = {
        name: connection.execute(sa.text("SELECT to_regclass(:name)::text"), {"name": name}).scalar_one()
        for name in ("agents", "gateways")
    }
    if all(found.values()):
        statement = _FILL.replace("public_agents", found["agents"]).replace(
            "public_gateways", found["gateways"]
        )
        connection.exec_driver_sql(statement)
