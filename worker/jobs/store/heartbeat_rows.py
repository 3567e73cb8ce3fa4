"""The rows of a job for heartbeat settings: it holds no agent, and ends with the last of its rows."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

_END_IF_DONE = text("""
    UPDATE provisioner.jobs j
    SET status = CASE WHEN c.bad = 0 THEN 'succeeded' WHEN c.good = 0 THEN 'failed' ELSE 'partial' END,
        phase = 'ended', finished_at = now(), updated_at = now(), next_attempt_at = NULL, result = c.result,
        warnings = c.warnings,
        error = CASE WHEN c.bad > 0 THEN c.bad || ' of ' || j.agents_total || ' agents: ' || c.why END
    FROM (
        SELECT count(*) FILTER (WHERE status = 'succeeded') AS good,
            count(*) FILTER (WHERE status <> 'succeeded') AS bad,
            min(reason) FILTER (WHERE status <> 'succeeded') AS why,
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
        FROM provisioner.job_agents WHERE job_id = :job_id
    ) c
    WHERE j.id = :job_id AND j.status = 'running' AND j.agents_done >= j.agents_total
""")


def end_if_done(connection: Connection, job_id: UUID) -> None:
    """End a job of many agents once all of its rows have ended; its result counts them."""
    connection.execute(_END_IF_DONE, {"job_id": job_id})
