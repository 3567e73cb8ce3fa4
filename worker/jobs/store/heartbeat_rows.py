"""The rows of a job that syncs heartbeat settings: the job holds no agent and ends with its last row."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

from worker.jobs.states import ReasonCode, Step
from worker.jobs.store.codes import reason_code, refusal_code
from worker.jobs.store.job_agents import AGENT_NAME

_BEGIN = text("""
    UPDATE provisioner.jobs
    SET status = 'running', phase = :phase, started_at = now(), updated_at = now(),
        next_attempt_at = now() + make_interval(secs => :recheck_s),
        published_at = CASE WHEN :phase = 'look' THEN now() END,
        agents_total = :total, agents_done = :without_board, organization_id = :organization_id
    WHERE id = :job_id AND status = 'queued'
""")
_ROWS = text(f"""
    INSERT INTO provisioner.job_agents
        (job_id, agent_id, agent_name, board_id, phase, next_attempt_at, started_at,
         status, reason, reason_code, finished_at)
    SELECT :job_id, a.id, {AGENT_NAME}, a.board_id, 'roster', NULL, now(), stray.status, stray.reason,
        stray.code, stray.at
    FROM agents a, LATERAL (
        SELECT CASE WHEN lost THEN 'failed' ELSE 'pending' END AS status,
            CASE WHEN lost THEN 'It has no board: only a gateway''s main agent may have none.' END AS reason,
            CASE WHEN lost THEN '{ReasonCode.PERMANENT_ERROR}' END AS code,
            CASE WHEN lost THEN now() END AS at
        FROM (SELECT a.id = ANY(CAST(:without_board AS uuid[])) AS lost) l
    ) stray
    WHERE a.id = ANY(:agents)
""")


def start_heartbeats(
    connection: Connection,
    job_id: UUID,
    organization_id: UUID | None,
    *,
    agents: Sequence[UUID],
    without_board: Sequence[UUID],
    recheck_s: float,
    phase: Step = Step.ROSTER,
) -> None:
    """Start a queued job with a row for each of ``agents``; the job is due again in ``recheck_s`` seconds.

    ``without_board``: those of the agents that have no board and are not the main agent; their rows fail at
    once. ``phase``: the job's first step; if that is to look at the gateway, the job is published.
    """
    connection.execute(
        _BEGIN,
        {
            "job_id": job_id,
            "organization_id": organization_id,
            "total": len(agents),
            "without_board": len(without_board),
            "recheck_s": recheck_s,
            "phase": phase,
        },
    )
    connection.execute(
        _ROWS, {"job_id": job_id, "agents": list(agents), "without_board": list(without_board)}
    )


_END_SETTLED = text(f"""
    WITH ended AS (
        UPDATE provisioner.job_agents r
        SET status = CASE WHEN i.error IS NULL THEN 'succeeded' ELSE 'failed' END, reason = i.error,
            reason_code = {refusal_code("i")},
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
    SET agents_done = agents_done + (SELECT count(*) FROM ended), updated_at = now()
    WHERE id = :job_id AND status = 'running'
""")


def end_settled(connection: Connection, job_id: UUID) -> None:
    """End the rows whose intents the roster writer has settled."""
    connection.execute(_END_SETTLED, {"job_id": job_id})


_END_ABSENT = text(f"""
    WITH ended AS (
        UPDATE provisioner.job_agents
        SET status = 'failed', reason = 'It was deleted, or put on another gateway, meanwhile.',
            reason_code = '{ReasonCode.AGENT_DELETED}', finished_at = now()
        WHERE job_id = :job_id AND status = 'pending' AND agent_id <> ALL(:present)
        RETURNING agent_id
    )
    UPDATE provisioner.jobs
    SET agents_done = agents_done + (SELECT count(*) FROM ended), updated_at = now() WHERE id = :job_id
""")


def end_absent(connection: Connection, job_id: UUID, present: Sequence[UUID]) -> None:
    """Fail the rows of agents that are not among ``present``, those that the gateway still has."""
    connection.execute(_END_ABSENT, {"job_id": job_id, "present": list(present)})


_END_IF_DONE = text(f"""
    UPDATE provisioner.jobs j
    SET status = CASE WHEN c.bad = 0 THEN 'succeeded' WHEN c.good = 0 THEN 'failed' ELSE 'partial' END,
        phase = 'ended', finished_at = now(), updated_at = now(), next_attempt_at = NULL,
        published_at = NULL, lease_until = NULL, wait_reason = NULL, result = c.result,
        warnings = c.warnings,
        reason_code = CASE WHEN c.bad > 0 AND c.codes = 1 THEN c.code
                           WHEN c.bad > 0 THEN '{ReasonCode.AGENTS_FAILED}' END,
        error = CASE WHEN c.bad > 0 THEN c.bad || ' of ' || j.agents_total || ' agents: ' || c.why END
    FROM (
        SELECT count(*) FILTER (WHERE status = 'succeeded') AS good,
            count(*) FILTER (WHERE status <> 'succeeded') AS bad,
            min(reason) FILTER (WHERE status <> 'succeeded') AS why,
            min(said.code) FILTER (WHERE status <> 'succeeded') AS code,
            count(DISTINCT said.code) FILTER (WHERE status <> 'succeeded') AS codes,
            jsonb_build_object(
                'agents', count(*), 'updated', count(*) FILTER (WHERE status = 'succeeded'),
                'errors', coalesce(jsonb_agg(
                    jsonb_build_object('agent_id', agent_id, 'agent_name', agent_name, 'message', reason)
                ) FILTER (WHERE status <> 'succeeded'), '[]'::jsonb)
            ) AS result,
            coalesce((
                SELECT jsonb_agg(DISTINCT warning)
                FROM provisioner.job_agents r, jsonb_array_elements(r.warnings) warning
                WHERE r.job_id = :job_id
            ), '[]'::jsonb) AS warnings
        FROM provisioner.job_agents a, LATERAL (SELECT {reason_code("a")} AS code) said
        WHERE job_id = :job_id
    ) c
    WHERE j.id = :job_id AND j.status = 'running' AND j.agents_done >= j.agents_total
""")


def end_if_done(connection: Connection, job_id: UUID) -> None:
    """End the job if all of its rows have ended, with a result that counts them.

    If some rows did not succeed, the job gets their reason code, or AGENTS_FAILED if their codes differ.
    """
    connection.execute(_END_IF_DONE, {"job_id": job_id})
