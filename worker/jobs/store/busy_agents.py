"""What becomes of a job's row whose agent another job holds: it waits in line, or ends if it is cancelled."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from worker.jobs.states import ReasonCode

CANCELLED = "Cancelled on request."
"""The recorded reason of a job or row that was cancelled."""
BUSY_AGENT_WAIT_S = 5.0
"""Seconds until a job that found its agent busy tries again. Usually it is published earlier, when the other
job frees the agent."""

_POSTPONE_BUSY = text(f"""
    UPDATE provisioner.job_agents r
    SET published_at = NULL, reason = 'waiting for another job on this agent',
        reason_code = '{ReasonCode.WAITING_FOR_AGENT}',
        next_attempt_at = CASE WHEN EXISTS (
            SELECT FROM provisioner.job_agents h WHERE h.agent_id = :agent_id AND h.status = 'running'
        ) THEN now() + make_interval(secs => :wait_s) ELSE now() END
    WHERE r.job_id = :job_id AND r.agent_id = :agent_id AND r.status = 'pending'
    RETURNING (SELECT j.cancel_requested_at FROM provisioner.jobs j WHERE j.id = r.job_id)
""")
_END_WAITING = text("""
    WITH ended AS (
        UPDATE provisioner.job_agents r
        SET status = 'cancelled', reason = :reason, reason_code = :code, next_attempt_at = NULL,
            published_at = NULL, finished_at = now()
        FROM provisioner.jobs j
        WHERE r.job_id = :job_id AND j.id = r.job_id AND j.kind <> 'sync_gateway' AND r.status = 'pending'
          AND EXISTS (SELECT FROM provisioner.job_agents o
                      WHERE o.agent_id = r.agent_id AND o.status = 'running')
        RETURNING r.job_id
    )
    UPDATE provisioner.jobs
    SET status = 'cancelled', phase = 'ended', error = :reason, reason_code = :code,
        cancel_requested_at = coalesce(cancel_requested_at, now()), agents_done = agents_total,
        next_attempt_at = NULL, published_at = NULL, finished_at = now(), updated_at = now()
    FROM ended WHERE jobs.id = ended.job_id
""")
"""Ends a job about one agent that waits for another job on that agent: until then nobody could claim it."""


def postpone(connection: Connection, job_id: UUID, agent_id: UUID) -> None:
    """Have a row wait until its agent is free. If its job is being cancelled, end it instead."""
    values = {"job_id": job_id, "agent_id": agent_id, "wait_s": BUSY_AGENT_WAIT_S}
    if connection.execute(_POSTPONE_BUSY, values).scalar_one_or_none() is not None:
        end_waiting(connection, job_id)


def end_waiting(connection: Connection, job_id: UUID) -> bool:
    """Cancel a job about one agent that waits for another job on that agent. Returns whether it was one."""
    ending = {"job_id": job_id, "reason": CANCELLED, "code": ReasonCode.CANCELLED}
    return bool(connection.execute(_END_WAITING, ending).rowcount)
