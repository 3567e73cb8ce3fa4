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

# Where the agents of v0.1.0 live. An agent's gateways are those on which our records have it, else its row's
# (Mission Control made it). Its id there is what its stored session key says, which is older than its row where
# its role has changed since; the first releases of Mission Control named a main agent's session after another
# agent. Without such a key, an agent of which we have records has the id that its row gives.
#
# Where several agents claim one id, it is the agent's whose row says so today, then of the one that we keyed
# last, then of the oldest: leads and main agents hand their ids on.
_FILL = """
    INSERT INTO provisioner.agent_places (agent_id, gateway_id, openclaw_id, session_key, workspace)
    WITH recorded AS (
        SELECT agent_id, gateway_id FROM provisioner.agent_credentials WHERE gateway_id IS NOT NULL
        UNION SELECT agent_id, gateway_id FROM provisioner.agent_files
    ), standing AS (
        SELECT a.id AS agent_id, a.board_id, a.is_board_lead, a.created_at, a.openclaw_session_id AS key,
            g.id AS gateway_id, g.workspace_root, r.agent_id IS NOT NULL AS recorded,
            CASE WHEN a.board_id IS NULL THEN 'mc-gateway-' || g.id
                 WHEN a.is_board_lead THEN 'lead-' || a.board_id ELSE 'mc-' || a.id END AS derived
        FROM {agents} a
        LEFT JOIN recorded r ON r.agent_id = a.id
        JOIN {gateways} g ON g.id = coalesce(r.gateway_id, a.gateway_id)
    ), claims AS (
        SELECT s.*, CASE
            WHEN key = 'agent:mc-' || agent_id || ':main' THEN 'mc-' || agent_id
            WHEN key ~ '^agent:lead-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:main$' THEN split_part(key, ':', 2)
            WHEN key IN ('agent:mc-gateway-' || gateway_id || ':main', 'agent:gateway-' || gateway_id || ':main')
            THEN 'mc-gateway-' || gateway_id
            WHEN recorded THEN derived END AS openclaw_id
        FROM standing s
    )
    SELECT DISTINCT ON (c.gateway_id, c.openclaw_id)
        c.agent_id, c.gateway_id, c.openclaw_id, 'agent:' || c.openclaw_id || ':main',
        nullif(rtrim(trim(c.workspace_root), '/'), '') || '/workspace-'
            || regexp_replace(c.openclaw_id, '^mc-gateway-', 'gateway-')
    FROM claims c
    LEFT JOIN provisioner.agent_credentials k ON k.agent_id = c.agent_id
    WHERE c.openclaw_id IS NOT NULL
    ORDER BY c.gateway_id, c.openclaw_id, c.openclaw_id = c.derived DESC, c.recorded DESC,
        k.updated_at DESC NULLS LAST, c.created_at, c.agent_id
"""

# Agents whose rows were deleted, and which no delete of ours took off their gateways.
_FILL_LEFT_BEHIND = """
    INSERT INTO provisioner.agent_places (agent_id, gateway_id, openclaw_id, session_key, workspace)
    SELECT DISTINCT ON (k.gateway_id, r.openclaw_id)
        k.agent_id, k.gateway_id, r.openclaw_id, 'agent:' || r.openclaw_id || ':main',
        nullif(rtrim(trim(g.workspace_root), '/'), '') || '/workspace-'
            || regexp_replace(r.openclaw_id, '^mc-gateway-', 'gateway-')
    FROM provisioner.agent_credentials k
    JOIN {gateways} g ON g.id = k.gateway_id
    JOIN LATERAL (
        SELECT o.openclaw_id FROM provisioner.job_agents o JOIN provisioner.jobs j ON j.id = o.job_id
        WHERE o.agent_id = k.agent_id AND j.gateway_id = k.gateway_id AND o.openclaw_id IS NOT NULL
        ORDER BY j.created_at DESC LIMIT 1
    ) r ON true
    WHERE NOT EXISTS (SELECT FROM {agents} a WHERE a.id = k.agent_id)
    ORDER BY k.gateway_id, r.openclaw_id, k.updated_at DESC NULLS LAST, k.agent_id
    ON CONFLICT DO NOTHING
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
        sa.Column("resolved_workspace", sa.Text(), nullable=True),
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
    _fill(op.get_bind())


def _fill(connection: sa.Connection) -> None:
    """Nothing to fill where there is no Mission Control, or only a piece of it."""
    tables = {name: _table(connection, name, columns) for name, columns in _READ.items()}
    if None not in tables.values():
        for statement in (_FILL, _FILL_LEFT_BEHIND):
            for name, table in tables.items():
                statement = statement.replace(f"{{{name}}}", str(table))
            connection.exec_driver_sql(statement)


_READ = {
    "agents": ("id", "board_id", "gateway_id", "is_board_lead", "openclaw_session_id", "created_at"),
    "gateways": ("id", "workspace_root"),
}


def _table(connection: sa.Connection, name: str, columns: tuple[str, ...]) -> str | None:
    """The table as the search path finds it, None where it lacks one of the columns."""
    statement = sa.text("""
        SELECT CAST(to_regclass(:name) AS text) FROM pg_attribute
        WHERE attrelid = to_regclass(:name) AND attname = ANY(:columns) AND NOT attisdropped
        HAVING count(*) = cardinality(CAST(:columns AS text[]))
    """)
    found: str | None = connection.execute(
        statement, {"name": name, "columns": list(columns)}
    ).scalar_one_or_none()
    return found
