"""Ends the waits of rows: for the roster writer, for an agent that another job held, for a gateway, or for
a sync window.

Rows are marked as published or made due, as `worker.jobs.store` explains.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from worker.jobs.messages import Message, job_message, message_of
from worker.jobs.states import ReasonCode
from worker.jobs.store.publishing import LOST_AFTER_S

_MARK_ROWS = text("""
    UPDATE provisioner.job_agents r
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    FROM provisioner.jobs j
    WHERE j.id = r.job_id AND (r.job_id, r.agent_id) IN (
        SELECT i.job_id, i.agent_id FROM provisioner.roster_intents i WHERE i.id = ANY(:intents)
    ) AND r.status = 'running' AND r.lease_until IS NULL AND r.phase IN ('roster', 'leaving')
    RETURNING r.job_id, r.agent_id, j.kind, j.gateway_id
""")
_MARK_JOBS = text("""
    UPDATE provisioner.jobs j
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    WHERE j.id IN (SELECT i.job_id FROM provisioner.roster_intents i WHERE i.id = ANY(:intents))
      AND j.status = 'running' AND j.phase = 'roster'
    RETURNING j.id, j.kind, j.status, j.phase, j.agent_id, j.board_id, j.gateway_id
""")


def mark_waiting_for(connection: Connection, intents: list[int]) -> list[Message]:
    """Mark as published the parked rows and the jobs that waited for these intents, which are now settled."""
    parameters = {"intents": intents, "republish_s": LOST_AFTER_S}
    messages = [message_of(row) for row in connection.execute(_MARK_ROWS, parameters)]
    return messages + [job_message(row) for row in connection.execute(_MARK_JOBS, parameters)]


# Materialized: a plain subquery may run once for each row that it is compared with, and would then find and
# lock a different row each time.
_NEXT_IN_LINE = text(f"""
    WITH released AS MATERIALIZED (
        SELECT next.job_id, next.agent_id FROM unnest(CAST(:agents AS uuid[])) AS free (agent_id), LATERAL (
            SELECT w.job_id, w.agent_id
            FROM provisioner.job_agents w JOIN provisioner.jobs o ON o.id = w.job_id
            WHERE w.agent_id = free.agent_id AND w.finished_at IS NULL AND w.status = 'pending'
              AND w.published_at IS NULL AND w.next_attempt_at IS NOT NULL
              AND w.reason_code IS DISTINCT FROM '{ReasonCode.WAITING_FOR_WINDOW}'
            ORDER BY o.created_at, o.id LIMIT 1 FOR UPDATE OF w SKIP LOCKED
        ) next
    )
    UPDATE provisioner.job_agents r
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    FROM provisioner.jobs j, released
    WHERE j.id = r.job_id AND (r.job_id, r.agent_id) = (released.job_id, released.agent_id)
    RETURNING r.job_id, r.agent_id, j.kind, j.gateway_id
""")


def mark_next_in_line(connection: Connection, *agents: UUID) -> list[Message]:
    """Mark as published, for each of these agents, the row of the oldest job that waits for the agent."""
    rows = connection.execute(_NEXT_IN_LINE, {"agents": list(agents), "republish_s": LOST_AFTER_S})
    return [message_of(row) for row in rows]


_MAKE_GATEWAY_ROWS_DUE = text(f"""
    WITH syncs AS (
        UPDATE provisioner.jobs j SET next_attempt_at = now()
        WHERE j.gateway_id = :gateway_id AND j.kind = 'sync_gateway' AND j.status = 'running'
          AND j.next_attempt_at > now()
    )
    UPDATE provisioner.job_agents r SET next_attempt_at = now()
    FROM provisioner.jobs j
    WHERE j.id = r.job_id AND j.gateway_id = :gateway_id AND r.status IN ('pending', 'running')
      AND r.lease_until IS NULL AND r.published_at IS NULL AND r.next_attempt_at > now()
      AND r.reason_code IS DISTINCT FROM '{ReasonCode.WAITING_FOR_WINDOW}'
      AND coalesce(r.phase, '') NOT IN ('roster', 'leaving') AND (r.wake IS NULL OR r.wake_sent_at IS NULL)
""")


def make_gateway_rows_due(connection: Connection, gateway_id: UUID) -> None:
    """Make the gateway's parked rows and syncs due, because the gateway can be reached again. Rows that wait
    for the roster writer or for a sync window, or that are being woken in a batch, are left as they are."""
    connection.execute(_MAKE_GATEWAY_ROWS_DUE, {"gateway_id": gateway_id})


_MAKE_WINDOW_WAITS_DUE = text(f"""
    WITH waiting AS (
        UPDATE provisioner.jobs SET next_attempt_at = now()
        WHERE gateway_id = :gateway_id AND status IN ('queued', 'running') AND lease_until IS NULL
          AND published_at IS NULL AND reason_code = '{ReasonCode.WAITING_FOR_WINDOW}'
    )
    UPDATE provisioner.job_agents r SET next_attempt_at = now()
    FROM provisioner.jobs j
    WHERE j.id = r.job_id AND r.status = 'pending' AND r.published_at IS NULL
      AND r.reason_code = '{ReasonCode.WAITING_FOR_WINDOW}' AND j.status = 'running'
      AND (j.gateway_id = :gateway_id OR EXISTS (
            SELECT FROM provisioner.agent_places p
            WHERE p.agent_id = r.agent_id AND p.gateway_id = :gateway_id AND p.until IS NULL))
""")


def make_window_waits_due(connection: Connection, gateway_id: UUID) -> None:
    """Make due what waits for a sync window of the gateway, because its windows were changed."""
    connection.execute(_MAKE_WINDOW_WAITS_DUE, {"gateway_id": gateway_id})
