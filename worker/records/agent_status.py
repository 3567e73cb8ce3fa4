"""Writes agents.status when a job takes an agent over and when it ends (rules.md 37, 38)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import Connection, text

from worker.gateway.heartbeats import DEFAULT_HEARTBEAT

_TAKE_OVER = text("""
    WITH before AS (SELECT id, status FROM agents WHERE id = :agent_id FOR UPDATE)
    UPDATE agents
    SET status = :status, updated_at = now() AT TIME ZONE 'utc', provision_action = CAST(:action AS varchar),
        provision_requested_at = CASE WHEN CAST(:action AS varchar) = 'provision'
            THEN coalesce(provision_requested_at, now() AT TIME ZONE 'utc') ELSE provision_requested_at END
    FROM before WHERE agents.id = before.id
    RETURNING before.status
""")
_SUCCEED = text("""
    UPDATE agents
    SET status = 'online', openclaw_session_id = ended.session_key, provision_requested_at = NULL,
        provision_action = NULL, provision_confirm_token_hash = NULL, updated_at = now() AT TIME ZONE 'utc',
        heartbeat_config = CASE WHEN coalesce(heartbeat_config::text, 'null') = 'null'
            THEN CAST(:heartbeat AS json) ELSE heartbeat_config END
    FROM unnest(CAST(:agents AS uuid[]), CAST(:session_keys AS text[])) AS ended (agent_id, session_key)
    WHERE id = ended.agent_id
""")
_KEEP_KEY = text("UPDATE agents SET openclaw_session_id = :session_key WHERE id = :agent_id")
_RESTORE = text("""
    UPDATE agents
    SET status = CASE WHEN agents.status NOT IN ('provisioning', 'updating', 'deleting') THEN agents.status
                      WHEN r.status_before NOT IN ('provisioning', 'updating', 'deleting')
                      THEN r.status_before ELSE 'offline' END,
        provision_action = NULL, updated_at = now() AT TIME ZONE 'utc'
    FROM provisioner.job_agents r
    WHERE agents.id = r.agent_id AND r.job_id = :job_id AND r.agent_id = :agent_id
""")


_GIVE_BACK = text("""
    UPDATE agents
    SET status = r.status_before, updated_at = now() AT TIME ZONE 'utc',
        provision_action = CASE WHEN r.status_before IN ('provisioning', 'updating', 'deleting')
            THEN provision_action END
    FROM provisioner.job_agents r
    WHERE agents.id = r.agent_id AND r.job_id = :job_id AND r.agent_id = :agent_id
      AND r.status_before IS NOT NULL AND agents.status IN ('provisioning', 'updating', 'deleting')
""")


def take_over(connection: Connection, agent_id: UUID, status: str, action: str) -> str | None:
    """Set agents.status and provision_action to those of a job that begins; return the previous status.

    None if the agent has no row.
    """
    parameters = {"agent_id": agent_id, "status": status, "action": action}
    before: str | None = connection.execute(_TAKE_OVER, parameters).scalar_one_or_none()
    return before


def succeed(connection: Connection, session_keys: Mapping[UUID, str]) -> None:
    """Mark the agents as online and store their session keys. Agents without heartbeat settings get the
    default."""
    agents = {"agents": list(session_keys), "session_keys": list(session_keys.values())}
    connection.execute(_SUCCEED, {**agents, "heartbeat": json.dumps(DEFAULT_HEARTBEAT)})


def keep_session_key(connection: Connection, agent_id: UUID, session_key: str) -> None:
    """Correct the agent's stored session key and nothing else (rules.md 5, 35)."""
    connection.execute(_KEEP_KEY, {"agent_id": agent_id, "session_key": session_key})


def restore(connection: Connection, job_id: UUID, agent_id: UUID) -> None:
    """Restore the status that the agent had before the job, unless another program has changed it since.

    The agent becomes offline if no earlier status is known, or if that was one of a job's: a service may have
    set it before it enqueued the job, and it must not stay for ever.
    """
    connection.execute(_RESTORE, {"job_id": job_id, "agent_id": agent_id})


def give_back(connection: Connection, job_id: UUID, agent_id: UUID) -> None:
    """Set the status that the agent had before the job took it over, because the job waits and has done
    nothing. Does nothing if it had not taken it over, or if another program has changed the status since."""
    connection.execute(_GIVE_BACK, {"job_id": job_id, "agent_id": agent_id})
