"""Marks due rows as published, and unmarks those whose message was not sent.

A mark expires: if its message leads to no claim, the row is due again after one of the times below.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, text

from worker.jobs.kinds import KINDS, not_served
from worker.jobs.messages import Message, job_message, message_of, roster_writer_message
from worker.jobs.states import ReasonCode
from worker.jobs.store.webhooks import deliver_anyway
from worker.masking.columns import MaskedText
from worker.schema_version import NEEDED_REVISION

REPUBLISH_AFTER_S = 60
"""Seconds after which the message of a queued job counts as lost. It may only be waiting in a long queue, so
this is generous."""
LOST_AFTER_S = 15
"""Seconds after which the message of any other row counts as lost. A worker that is killed loses the messages
that it received and had not claimed; a duplicate message is harmless, while a row whose message was lost may
hold its agent."""
_WRITER_LOST_AFTER_S = 10

# Unknown kinds are left to newer workers while the database is newer than this worker.
_DUE_JOBS = text("""
    WITH due AS (
        SELECT id FROM provisioner.jobs
        WHERE status IN ('queued', 'running') AND next_attempt_at <= now()
          AND (kind = ANY(:served) OR (SELECT version_num FROM provisioner.alembic_version) <= :revision)
        ORDER BY next_attempt_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    UPDATE provisioner.jobs
    SET published_at = now(), next_attempt_at = now() + make_interval(
        secs => CASE status WHEN 'queued' THEN CAST(:queued_s AS float) ELSE :republish_s END)
    FROM due WHERE jobs.id = due.id
    RETURNING jobs.id, jobs.kind, jobs.status, jobs.phase, jobs.agent_id, jobs.board_id, jobs.gateway_id,
        jobs.webhook
""")
_NOT_SERVED = text("""
    UPDATE provisioner.jobs
    SET status = 'failed', error = :error, reason_code = :code, next_attempt_at = NULL, published_at = NULL,
        updated_at = now(), finished_at = now()
    WHERE id = :job_id
""").bindparams(bindparam("error", type_=MaskedText))
_ROWS_NOT_SERVED = text("""
    UPDATE provisioner.job_agents
    SET status = 'failed', reason = :error, reason_code = :code, next_attempt_at = NULL, published_at = NULL,
        lease_until = NULL, finished_at = now()
    WHERE job_id = :job_id AND status IN ('pending', 'running')
""").bindparams(bindparam("error", type_=MaskedText))
_DUE_AGENTS = text("""
    WITH due AS (
        SELECT job_id, agent_id FROM provisioner.job_agents
        WHERE status IN ('pending', 'running') AND next_attempt_at <= now()
          AND EXISTS (SELECT FROM provisioner.jobs j WHERE j.id = job_id AND j.kind = ANY(:served))
        ORDER BY next_attempt_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    UPDATE provisioner.job_agents r
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    FROM due, provisioner.jobs j
    WHERE r.job_id = due.job_id AND r.agent_id = due.agent_id AND j.id = r.job_id
    RETURNING r.job_id, r.agent_id, j.kind, j.gateway_id
""")
_DUE_WRITERS = text("""
    WITH due AS (
        SELECT gateway_id FROM provisioner.gateway_states s
        WHERE (writer_queued_at IS NULL OR writer_queued_at < now() - make_interval(secs => :lost_s))
          AND (writer_until IS NULL OR writer_until < now())
          AND coalesce(rate_limited_until, '-infinity') <= now()
          AND coalesce(writer_not_before, '-infinity') <= now()
          AND EXISTS (SELECT FROM provisioner.roster_intents i
                      WHERE i.gateway_id = s.gateway_id AND i.applied_at IS NULL AND i.error IS NULL)
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    UPDATE provisioner.gateway_states s SET writer_queued_at = now()
    FROM due WHERE s.gateway_id = due.gateway_id
    RETURNING s.gateway_id
""")


def mark_due(connection: Connection, batch: int) -> list[Message]:
    """Mark the jobs, agents' rows and roster writers that are due, at most ``batch`` of each.

    A job of an unknown kind is left to newer workers if the schema is newer than this worker needs.
    Otherwise no worker serves it, and the job fails.
    """
    served = {"served": list(KINDS), "revision": NEEDED_REVISION}
    limits = {"batch": batch, "queued_s": REPUBLISH_AFTER_S, "republish_s": LOST_AFTER_S, **served}
    jobs = connection.execute(_DUE_JOBS, limits).all()
    for row in jobs:
        if row.kind not in KINDS:
            values = {"error": not_served(row.kind), "code": ReasonCode.REFUSED_REQUEST}
            for statement in (_NOT_SERVED, _ROWS_NOT_SERVED):
                connection.execute(statement, {"job_id": row.id, **values})
            deliver_anyway(connection, row.id, dict(row._mapping))
    messages = [job_message(row) for row in jobs if row.kind in KINDS]
    messages += [message_of(row) for row in connection.execute(_DUE_AGENTS, limits)]
    writers = connection.execute(_DUE_WRITERS, {"batch": batch, "lost_s": _WRITER_LOST_AFTER_S})
    return messages + [roster_writer_message(row.gateway_id) for row in writers]


_UNMARK_JOB = text("""
    UPDATE provisioner.jobs SET published_at = NULL, next_attempt_at = now()
    WHERE id = :job_id AND published_at IS NOT NULL
""")
_UNMARK_AGENT = text("""
    UPDATE provisioner.job_agents SET published_at = NULL, next_attempt_at = now()
    WHERE job_id = :job_id AND agent_id = :agent_id AND published_at IS NOT NULL
""")
_UNMARK_WRITER = text(
    "UPDATE provisioner.gateway_states SET writer_queued_at = NULL WHERE gateway_id = :gateway_id"
)


def unmark(connection: Connection, message: Message) -> None:
    """Remove the mark from the row of a message that was not sent, so that the row is due at once."""
    if message.agent_id is not None:
        connection.execute(_UNMARK_AGENT, {"job_id": message.job_id, "agent_id": message.agent_id})
    elif message.job_id is not None:
        connection.execute(_UNMARK_JOB, {"job_id": message.job_id})
    else:
        connection.execute(_UNMARK_WRITER, {"gateway_id": message.gateway_id})
