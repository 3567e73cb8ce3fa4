"""Publishes what is due: queued jobs, parked and abandoned rows, roster writes (decisions.md D8).

Rows are marked, the mark is committed, and then the messages go out: a message that came before the commit
would find nothing to claim. Where the broker is away the marks are taken back, so that the next tick tries
again; where the process dies in between, LOST_AFTER_S and REPUBLISH_AFTER_S do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, bindparam, text

from worker.jobs.messages import Message, job_message, message_of, roster_writer_message
from worker.jobs.requests import REQUESTS
from worker.jobs.store.publishing import LOST_AFTER_S, REPUBLISH_AFTER_S
from worker.masking.columns import MaskedText
from worker.revision import NEEDED_REVISION

Send = Callable[[str, Mapping[str, Any], str | None], None]
"""``send(task name, kwargs, task id)``; raises where the broker cannot be reached."""

PUBLISH_ERRORS = (BrokerError, RedisError, OSError, RuntimeError)
"""What a publisher may raise where the broker is away (celery.md 0.4)."""
BATCH = 100
_WRITER_LOST_AFTER_S = 10

# A kind that this version does not know is a newer worker's where the database is newer than this worker.
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
    RETURNING jobs.id, jobs.kind, jobs.status, jobs.phase, jobs.agent_id, jobs.board_id, jobs.gateway_id
""")

_NOT_SERVED = text("""
    UPDATE provisioner.jobs
    SET status = 'failed', error = :error, next_attempt_at = NULL, published_at = NULL, updated_at = now(),
        finished_at = now()
    WHERE id = :job_id
""").bindparams(bindparam("error", type_=MaskedText))

_ROWS_NOT_SERVED = text("""
    UPDATE provisioner.job_agents
    SET status = 'failed', reason = :error, next_attempt_at = NULL, published_at = NULL, lease_until = NULL,
        finished_at = now()
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


def publish_due(engine: Engine, send: Send) -> int:
    """Publish all that is due now, a batch of each sort; return the number of messages.

    A job whose kind this version does not know is left alone while the database's revision is newer than
    this worker: a newer worker serves it. In a database of this revision no worker does, so the job fails.

    Raises what ``send`` raises, with nothing lost.
    """
    served = {"served": list(REQUESTS), "revision": NEEDED_REVISION}
    limits = {"batch": BATCH, "queued_s": REPUBLISH_AFTER_S, "republish_s": LOST_AFTER_S, **served}
    with engine.begin() as connection:
        jobs = connection.execute(_DUE_JOBS, limits).all()
        for row in jobs:
            if row.kind not in REQUESTS:
                error = (
                    f"No worker of this version serves jobs of kind {row.kind}: check its spelling; if a"
                    " newer version has it, run that version's `provisioner migrate` and upgrade the workers."
                )
                for statement in (_NOT_SERVED, _ROWS_NOT_SERVED):
                    connection.execute(statement, {"job_id": row.id, "error": error})
        messages = [job_message(row) for row in jobs if row.kind in REQUESTS]
        messages += [message_of(row) for row in connection.execute(_DUE_AGENTS, limits)]
        writers = connection.execute(_DUE_WRITERS, {"batch": BATCH, "lost_s": _WRITER_LOST_AFTER_S})
        messages += [roster_writer_message(row.gateway_id) for row in writers]
    send_marked(engine, send, messages)
    return len(messages)


def send_marked(engine: Engine, send: Send, messages: Sequence[Message]) -> None:
    """Send the messages of rows whose marks are committed. Raises what ``send`` raises, after taking back
    the marks of all that did not go out."""
    sent = 0
    try:
        for message in messages:
            send(message.task, message.kwargs, message.task_id)
            sent += 1
    finally:
        if sent < len(messages):
            with engine.begin() as connection:
                for message in messages[sent:]:
                    _unmark(connection, message)


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


def _unmark(connection: Connection, message: Message) -> None:
    if message.agent_id is not None:
        connection.execute(_UNMARK_AGENT, {"job_id": message.job_id, "agent_id": message.agent_id})
    elif message.job_id is not None:
        connection.execute(_UNMARK_JOB, {"job_id": message.job_id})
    else:
        connection.execute(_UNMARK_WRITER, {"gateway_id": message.gateway_id})


_WAKE_ROWS = text("""
    UPDATE provisioner.job_agents r
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    FROM provisioner.jobs j
    WHERE j.id = r.job_id AND (r.job_id, r.agent_id) IN (
        SELECT i.job_id, i.agent_id FROM provisioner.roster_intents i WHERE i.id = ANY(:intents)
    ) AND r.status = 'running' AND r.lease_until IS NULL AND r.phase IN ('roster', 'leaving')
    RETURNING r.job_id, r.agent_id, j.kind, j.gateway_id
""")


_WAKE_JOBS = text("""
    UPDATE provisioner.jobs j
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    WHERE j.id IN (SELECT i.job_id FROM provisioner.roster_intents i WHERE i.id = ANY(:intents))
      AND j.status = 'running' AND j.phase = 'roster'
    RETURNING j.id, j.kind, j.status, j.phase, j.agent_id, j.board_id, j.gateway_id
""")


def mark_waiting_for(connection: Connection, intents: list[int]) -> list[Message]:
    """Mark the parked rows, and the jobs, that wait for these intents, now that they are settled; send after
    the commit."""
    parameters = {"intents": intents, "republish_s": LOST_AFTER_S}
    messages = [message_of(row) for row in connection.execute(_WAKE_ROWS, parameters)]
    return messages + [job_message(row) for row in connection.execute(_WAKE_JOBS, parameters)]


# Materialized, for a subquery in its place may be run once for each row that it is held against, and would
# then find and lock another row each time.
_NEXT_IN_LINE = text("""
    WITH called AS MATERIALIZED (
        SELECT next.job_id, next.agent_id FROM unnest(CAST(:agents AS uuid[])) AS free (agent_id), LATERAL (
            SELECT w.job_id, w.agent_id
            FROM provisioner.job_agents w JOIN provisioner.jobs o ON o.id = w.job_id
            WHERE w.agent_id = free.agent_id AND w.finished_at IS NULL AND w.status = 'pending'
              AND w.published_at IS NULL AND w.next_attempt_at IS NOT NULL
            ORDER BY o.created_at, o.id LIMIT 1 FOR UPDATE OF w SKIP LOCKED
        ) next
    )
    UPDATE provisioner.job_agents r
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    FROM provisioner.jobs j, called
    WHERE j.id = r.job_id AND (r.job_id, r.agent_id) = (called.job_id, called.agent_id)
    RETURNING r.job_id, r.agent_id, j.kind, j.gateway_id
""")


def mark_next_in_line(connection: Connection, *agents: UUID) -> list[Message]:
    """Of each agent, mark the oldest of the jobs that found it busy, now that it is free; send after the
    commit."""
    rows = connection.execute(_NEXT_IN_LINE, {"agents": list(agents), "republish_s": LOST_AFTER_S})
    return [message_of(row) for row in rows]
