"""Publishes what is due: queued jobs, parked and abandoned rows, roster writes (design D8).

A row is marked and its message sent in one transaction: where the broker is away nothing is marked, and the
next tick tries again; where the commit is lost a message too many finds nothing to claim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from worker.jobs.ledger import REPUBLISH_AFTER_S
from worker.jobs.requests import TARGETS

Send = Callable[[str, Mapping[str, Any], str | None], None]
"""``send(task name, kwargs, task id)``; raises where the broker cannot be reached."""

BATCH = 100
_WRITER_LOST_AFTER_S = 10

_DUE_JOBS = text("""
    WITH due AS (
        SELECT id FROM provisioner.jobs
        WHERE status IN ('queued', 'running') AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    UPDATE provisioner.jobs
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    FROM due WHERE jobs.id = due.id
    RETURNING jobs.id, jobs.kind, jobs.agent_id, jobs.board_id, jobs.gateway_id
""")

_DUE_AGENTS = text("""
    WITH due AS (
        SELECT job_id, agent_id FROM provisioner.job_agents
        WHERE status IN ('pending', 'running') AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    UPDATE provisioner.job_agents r
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    FROM due, provisioner.jobs j
    WHERE r.job_id = due.job_id AND r.agent_id = due.agent_id AND j.id = r.job_id
    RETURNING r.job_id, r.agent_id, j.kind, j.agent_id IS NOT NULL AS single
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
    """Publish all that is due now, a batch of each kind; return how many messages went out."""
    limits = {"batch": BATCH, "republish_s": REPUBLISH_AFTER_S}
    with engine.begin() as connection:
        jobs = connection.execute(_DUE_JOBS, limits).all()
        for job in jobs:
            target = TARGETS.get(job.kind, "gateway_id")
            kwargs = {target: str(getattr(job, target))} if getattr(job, target) else {}
            send(f"tasks.{job.kind}", kwargs, str(job.id))
    with engine.begin() as connection:
        rows = connection.execute(_DUE_AGENTS, limits).all()
        for row in rows:
            send_agent(send, row.job_id, row.agent_id, row.kind, single=row.single)
    with engine.begin() as connection:
        writers = connection.execute(_DUE_WRITERS, {"batch": BATCH, "lost_s": _WRITER_LOST_AFTER_S}).all()
        for writer in writers:
            send_roster_writer(send, writer.gateway_id)
    return len(jobs) + len(rows) + len(writers)


def send_agent(send: Send, job_id: UUID, agent_id: UUID, kind: str, *, single: bool) -> None:
    """Send the message for one agent's row: the job's own task where the job is about one agent."""
    if single:
        send(f"tasks.{kind}", {"agent_id": str(agent_id)}, str(job_id))
    else:
        send("tasks.sync_agent", {"job_id": str(job_id), "agent_id": str(agent_id)}, None)


def send_roster_writer(send: Send, gateway_id: UUID) -> None:
    """Send the message for one gateway's roster writer."""
    send("tasks.write_roster", {"gateway_id": str(gateway_id)}, None)


_WAKE_ROWS = text("""
    UPDATE provisioner.job_agents r
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    FROM provisioner.jobs j
    WHERE j.id = r.job_id AND (r.job_id, r.agent_id) IN (
        SELECT i.job_id, i.agent_id FROM provisioner.roster_intents i WHERE i.id = ANY(:intents)
    ) AND r.status = 'running' AND r.lease_until IS NULL AND r.phase = 'roster'
    RETURNING r.job_id, r.agent_id, j.kind, j.agent_id IS NOT NULL AS single
""")


def publish_waiting_for(connection: Connection, send: Send, intents: list[int]) -> int:
    """Publish the parked rows that wait for these intents, now that they are settled."""
    rows = connection.execute(_WAKE_ROWS, {"intents": intents, "republish_s": REPUBLISH_AFTER_S}).all()
    for row in rows:
        send_agent(send, row.job_id, row.agent_id, row.kind, single=row.single)
    return len(rows)
