"""Heartbeat settings of many agents in one config change (rules.md 42).

The job asks the roster writer for all of them at once, holds no agent, and talks to no gateway itself: the
entries are computed from the agents' rows when the roster is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

from worker.jobs.messages import Message
from worker.jobs.requests import BadRequestError, SyncHeartbeats
from worker.jobs.store.heartbeat_rows import end_if_done
from worker.jobs.store.job_agents import AGENT_NAME
from worker.provisioning.intents import ROSTER_PATIENCE_S, Wish, give_up_overdue, record_intents
from worker.provisioning.places import LIVE_PLACES, home_of, places_of


def begin(
    connection: Connection, job_id: UUID, request: SyncHeartbeats, budget_s: float = ROSTER_PATIENCE_S
) -> list[Message]:
    """Give the job a row for each agent and ask for the config change; a job without agents ends here.

    What is returned must be sent after the commit. Raises BadRequestError.
    """
    gateway = connection.execute(_GATEWAY, {"id": request.gateway_id}).one_or_none()
    if gateway is None:
        raise BadRequestError(f"There is no gateway with gateway_id {request.gateway_id}.")
    wanted = request.agent_ids
    rows = connection.execute(_AGENTS, {"gateway_id": request.gateway_id, "agents": wanted}).all()
    missing: Sequence[UUID] = sorted(set(wanted or ()) - {row.id for row in rows}, key=str)
    if missing:
        raise BadRequestError(f"agent_ids: gateway {gateway.name!r} has no agent {missing[0]}.")
    strays = [row.id for row in rows if row.board_id is None and not row.is_main]
    places = {
        row.id: home_of(row, "", places_of(row.places)).openclaw_id for row in rows if row.id not in strays
    }
    connection.execute(
        _BEGIN,
        {
            "job_id": job_id,
            "organization_id": gateway.organization_id,
            "total": len(rows),
            "strays": len(strays),
            "patience_s": min(ROSTER_PATIENCE_S, budget_s),
        },
    )
    parameters = {"job_id": job_id, "agents": [row.id for row in rows], "strays": strays}
    connection.execute(_ROWS, parameters)
    wishes = [Wish(agent_id, place, only_present=True) for agent_id, place in places.items()]
    messages = record_intents(connection, request.gateway_id, job_id, *wishes)
    end_if_done(connection, job_id)
    return messages


def go_on(connection: Connection, job_id: UUID, budget_s: float = ROSTER_PATIENCE_S) -> None:
    """End the rows whose wishes the roster writer has settled, and the job with the last of them. Wishes that
    have been open for ``budget_s`` are given up."""
    give_up_overdue(connection, job_id, budget_s)
    patience_s = min(ROSTER_PATIENCE_S, max(1.0, budget_s / 10))
    connection.execute(_END_SETTLED, {"job_id": job_id, "patience_s": patience_s})
    end_if_done(connection, job_id)


_GATEWAY = text("SELECT name, organization_id FROM gateways WHERE id = :id")
_AGENTS = text(f"""
    SELECT a.id, a.board_id, a.is_board_lead, a.gateway_id, {LIVE_PLACES} AS places,
        a.board_id IS NULL AND a.id = (
            SELECT id FROM agents WHERE gateway_id = :gateway_id AND board_id IS NULL
            ORDER BY created_at, id LIMIT 1
        ) AS is_main
    FROM agents a
    WHERE a.gateway_id = :gateway_id
      AND (CAST(:agents AS uuid[]) IS NULL OR a.id = ANY(CAST(:agents AS uuid[])))
""")
_BEGIN = text("""
    UPDATE provisioner.jobs
    SET status = 'running', phase = 'roster', started_at = now(), updated_at = now(),
        next_attempt_at = now() + make_interval(secs => :patience_s), published_at = NULL,
        agents_total = :total, agents_done = :strays, organization_id = :organization_id
    WHERE id = :job_id AND status = 'queued'
""")
_ROWS = text(f"""
    INSERT INTO provisioner.job_agents
        (job_id, agent_id, agent_name, board_id, phase, next_attempt_at, started_at,
         status, reason, finished_at)
    SELECT :job_id, a.id, {AGENT_NAME}, a.board_id, 'roster', NULL, now(), stray.status, stray.reason,
        stray.at
    FROM agents a, LATERAL (
        SELECT CASE WHEN lost THEN 'failed' ELSE 'pending' END AS status,
            CASE WHEN lost THEN 'It has no board: only a gateway''s main agent may have none.' END AS reason,
            CASE WHEN lost THEN now() END AS at
        FROM (SELECT a.id = ANY(CAST(:strays AS uuid[])) AS lost) l
    ) stray
    WHERE a.id = ANY(:agents)
""")
_END_SETTLED = text("""
    WITH ended AS (
        UPDATE provisioner.job_agents r
        SET status = CASE WHEN i.error IS NULL THEN 'succeeded' ELSE 'failed' END, reason = i.error,
            phase = CASE WHEN i.error IS NULL THEN 'ended' ELSE r.phase END, openclaw_id = i.openclaw_id,
            warnings = CASE WHEN i.warning IS NULL THEN r.warnings
                            ELSE r.warnings || jsonb_build_array(i.warning) END,
            finished_at = now()
        FROM provisioner.roster_intents i
        WHERE r.job_id = :job_id AND r.status = 'pending' AND i.job_id = r.job_id AND i.agent_id = r.agent_id
          AND (i.applied_at IS NOT NULL OR i.error IS NOT NULL)
        RETURNING r.agent_id
    )
    UPDATE provisioner.jobs
    SET agents_done = agents_done + (SELECT count(*) FROM ended), updated_at = now(), published_at = NULL,
        next_attempt_at = now() + make_interval(secs => :patience_s)
    WHERE id = :job_id AND status = 'running'
""")
