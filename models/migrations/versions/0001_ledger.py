"""The first tables of the schema: jobs, their agents, roster intents, gateway states."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agent_credentials",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("verified_hash", sa.Text(), nullable=True),
        sa.Column("pending_hash", sa.Text(), nullable=True),
        sa.Column("replaces_hash", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("gateway_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("agent_credentials_pkey")),
        schema="provisioner",
    )
    op.create_table(
        "agent_files",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source_sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("locator", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("applied_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('file', 'section', 'scratch')", name=op.f("agent_files_kind_check")),
        sa.PrimaryKeyConstraint("agent_id", "gateway_id", "name", name=op.f("agent_files_pkey")),
        schema="provisioner",
    )
    op.create_table(
        "gateway_states",
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("writer_owner", sa.Text(), nullable=True),
        sa.Column("writer_generation", sa.Integer(), server_default="0", nullable=False),
        sa.Column("writer_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("writer_queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("writer_not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rate_limited_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("restart_expected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("down_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_failure_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_token_fingerprint", sa.Text(), nullable=True),
        sa.Column("dialect", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("gateway_id", name=op.f("gateway_states_pkey")),
        schema="provisioner",
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("phase", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=True),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("gateway_id", sa.Uuid(), nullable=True),
        sa.Column("board_id", sa.Uuid(), nullable=True),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("parent_job_id", sa.Uuid(), nullable=True),
        sa.Column(
            "options",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column(
            "warnings",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("generation", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("agents_total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("agents_done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('provision_agent', 'update_agent', 'delete_agent', 'sync_gateway', 'sync_heartbeats', 'ensure_board_lead', 'provision_gateway_main')",
            name=op.f("jobs_kind_check"),
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'partial', 'failed', 'cancelled')",
            name=op.f("jobs_status_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
        schema="provisioner",
    )
    op.create_index("jobs_agent_idx", "jobs", ["agent_id", "created_at"], unique=False, schema="provisioner")
    op.create_index("jobs_created_idx", "jobs", ["created_at"], unique=False, schema="provisioner")
    op.create_index(
        "jobs_due_idx",
        "jobs",
        ["next_attempt_at"],
        unique=False,
        schema="provisioner",
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index(
        "jobs_gateway_idx", "jobs", ["gateway_id", "created_at"], unique=False, schema="provisioner"
    )
    op.create_index(
        "jobs_request_key",
        "jobs",
        ["request_id", "kind", sa.literal_column("coalesce(agent_id, board_id, gateway_id)")],
        unique=True,
        schema="provisioner",
        postgresql_where=sa.text("request_id IS NOT NULL"),
    )
    op.create_table(
        "roster_intents",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("change", sa.Text(), nullable=False),
        sa.Column("openclaw_id", sa.Text(), nullable=False),
        sa.Column("delete_files", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("present_before", sa.Boolean(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("change IN ('reconcile', 'remove')", name=op.f("roster_intents_change_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("roster_intents_pkey")),
        schema="provisioner",
    )
    op.create_index(
        "roster_intents_job_idx", "roster_intents", ["job_id", "agent_id"], unique=False, schema="provisioner"
    )
    op.create_index(
        "roster_intents_open_key",
        "roster_intents",
        ["gateway_id", "agent_id", "job_id", "change", "openclaw_id"],
        unique=True,
        schema="provisioner",
        postgresql_where=sa.text("applied_at IS NULL AND error IS NULL"),
    )
    op.create_table(
        "sync_schedules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("every", sa.Interval(), nullable=True),
        sa.Column("cron", sa.Text(), nullable=True),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column(
            "options",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("next_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_job_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "(every IS NULL) <> (cron IS NULL)", name=op.f("sync_schedules_every_or_cron_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("sync_schedules_pkey")),
        schema="provisioner",
    )
    op.create_index(
        "sync_schedules_due_idx",
        "sync_schedules",
        ["next_run_at"],
        unique=False,
        schema="provisioner",
        postgresql_where=sa.text("enabled"),
    )
    op.create_table(
        "job_agents",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("agent_name", sa.Text(), nullable=True),
        sa.Column("board_id", sa.Uuid(), nullable=True),
        sa.Column("openclaw_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("phase", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column(
            "warnings",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("generation", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_provision", sa.Boolean(), nullable=True),
        sa.Column("status_before", sa.Text(), nullable=True),
        sa.Column("wake_key", sa.Text(), nullable=True),
        sa.Column("wake_sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("woken_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "files",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'succeeded', 'skipped', 'failed', 'cancelled', 'not_attempted')",
            name=op.f("job_agents_status_check"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["provisioner.jobs.id"], name=op.f("job_agents_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "agent_id", name=op.f("job_agents_pkey")),
        schema="provisioner",
    )
    op.create_index(
        "job_agents_agent_idx", "job_agents", ["agent_id", "finished_at"], unique=False, schema="provisioner"
    )
    op.create_index(
        "job_agents_due_idx",
        "job_agents",
        ["next_attempt_at"],
        unique=False,
        schema="provisioner",
        postgresql_where=sa.text("status IN ('pending', 'running')"),
    )
    op.create_index(
        "job_agents_one_job_an_agent",
        "job_agents",
        ["agent_id"],
        unique=True,
        schema="provisioner",
        postgresql_where=sa.text("status = 'running'"),
    )
