"""Cancels a job: at once if no agent was begun, otherwise after the agents that workers hold at the moment.

A worker goes on with a row that it has leased until the row ends or snoozes. Parked rows become due, and
their next claim ends them; a sync's own row ends the rows that were not begun. Intents that the roster writer
has not settled are withdrawn (decisions.md D6).
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, bindparam, text

from worker.errors import PermanentError
from worker.jobs.states import ReasonCode
from worker.jobs.store.busy_agents import CANCELLED as CANCELLED
from worker.jobs.store.busy_agents import end_waiting
from worker.jobs.store.jobs import release_agent
from worker.jobs.store.sync_rows import end_pending
from worker.jobs.store.webhooks import deliver_anyway
from worker.masking.columns import MaskedText


def cancel(connection: Connection, job_id: UUID) -> bool:
    """Cancel the job. Returns true if this ended the job, false if the job ends once its open rows have.

    Cancelling a job again while it is open is safe. Raises PermanentError if the job had already ended.
    """
    ending = {"job_id": job_id, "reason": CANCELLED, "code": ReasonCode.CANCELLED}
    queued = connection.execute(_CANCEL_QUEUED, ending).one_or_none()
    if queued is not None:
        # A sync that waits for a sync window has rows already.
        end_pending(connection, job_id, "cancelled", CANCELLED, code=ReasonCode.CANCELLED)
        release_agent(connection, queued.kind, queued.agent_id)
        deliver_anyway(connection, job_id, dict(queued._mapping))
        return True
    job = connection.execute(_JOB, {"job_id": job_id}).one()
    if job.status != "running":
        raise PermanentError(f"Job {job_id} has ended before: {job.status}.")
    # Intents, rows, job: the lock order of every transaction that takes more than one of these.
    withdraw(connection, job_id, CANCELLED, ReasonCode.CANCELLED)
    if job.kind == "sync_heartbeats":
        connection.execute(_END_HEARTBEATS, ending)
        return True
    if end_waiting(connection, job_id):
        return True
    connection.execute(_MAKE_ROWS_DUE, {"job_id": job_id})
    connection.execute(_REQUEST, {"job_id": job_id})
    return False


_WITHDRAW = text("""
    UPDATE provisioner.roster_intents SET error = :reason, reason_code = :code
    WHERE job_id = :job_id AND applied_at IS NULL AND error IS NULL
""").bindparams(bindparam("reason", type_=MaskedText))


def withdraw(connection: Connection, job_id: UUID, reason: str, code: ReasonCode) -> None:
    """Refuse the job's open roster intents with ``reason``; ``code`` is the reason for programs."""
    connection.execute(_WITHDRAW, {"job_id": job_id, "reason": reason, "code": code})


_JOB = text("SELECT kind, status FROM provisioner.jobs WHERE id = :job_id")
_CANCEL_QUEUED = text("""
    UPDATE provisioner.jobs
    SET status = 'cancelled', phase = 'ended', error = :reason, reason_code = :code,
        cancel_requested_at = now(), next_attempt_at = NULL, published_at = NULL, finished_at = now(),
        updated_at = now()
    WHERE id = :job_id AND status = 'queued'
    RETURNING kind, agent_id, board_id, gateway_id, webhook
""")
_END_HEARTBEATS = text("""
    WITH settled AS (
        UPDATE provisioner.job_agents r
        SET status = CASE WHEN i.applied_at IS NOT NULL THEN 'succeeded' ELSE 'cancelled' END,
            phase = CASE WHEN i.applied_at IS NOT NULL THEN 'ended' ELSE r.phase END,
            reason = CASE WHEN i.applied_at IS NULL THEN :reason END,
            reason_code = CASE WHEN i.applied_at IS NULL THEN :code END, finished_at = now()
        FROM provisioner.job_agents k LEFT JOIN provisioner.roster_intents i
            ON i.job_id = k.job_id AND i.agent_id = k.agent_id
        WHERE r.job_id = :job_id AND r.status = 'pending' AND k.job_id = r.job_id AND k.agent_id = r.agent_id
        RETURNING r.status
    )
    UPDATE provisioner.jobs j
    SET status = 'cancelled', phase = 'ended', error = :reason, reason_code = :code,
        cancel_requested_at = now(), agents_done = agents_total, next_attempt_at = NULL, published_at = NULL,
        lease_until = NULL, wait_reason = NULL, finished_at = now(), updated_at = now(),
        result = jsonb_build_object(
            'agents', agents_total, 'errors', '[]'::jsonb,
            'updated', (SELECT count(*) FROM settled WHERE status = 'succeeded') + (
                SELECT count(*) FROM provisioner.job_agents
                WHERE job_id = :job_id AND status = 'succeeded'))
    WHERE id = :job_id AND status = 'running'
""")
_MAKE_ROWS_DUE = text("""
    UPDATE provisioner.job_agents SET next_attempt_at = now()
    WHERE job_id = :job_id AND finished_at IS NULL AND lease_until IS NULL AND published_at IS NULL
      AND next_attempt_at IS NOT NULL AND (wake IS NULL OR wake_sent_at IS NULL)
""")
"""Rows that are being woken in a batch are left out: the batch ends them."""
_REQUEST = text("""
    UPDATE provisioner.jobs
    SET cancel_requested_at = coalesce(cancel_requested_at, now()), updated_at = now(),
        next_attempt_at = CASE
            WHEN lease_until IS NULL AND published_at IS NULL AND next_attempt_at IS NOT NULL THEN now()
            ELSE next_attempt_at END
    WHERE id = :job_id AND status = 'running'
""")
