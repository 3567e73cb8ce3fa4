"""Starts and ends syncs, one at a time per gateway: further ones wait behind the running one.

In between, each agent's row that ends moves the sync on (`worker.jobs.store.sync_rows`), and the sync's own
row is leased for its first and last steps (`worker.jobs.store.job_leases`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from worker.jobs.messages import Message, job_message
from worker.jobs.requests import SyncGateway
from worker.jobs.states import AgentOutcome, ReasonCode
from worker.jobs.store.job_agents import AGENT_NAME
from worker.jobs.store.job_leases import CLAIMED, HELD, JobClaim, key_of, require_held
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.masking.columns import MaskedJson, MaskedText

SWEEP_S = 15.0
"""Seconds after which a running sync checks its rows, in case the end of one was missed, and after which a
waiting sync tries to start."""


_START = text(rf"""
    WITH served AS (
        SELECT b.id, b.name, coalesce((
            SELECT lower(m.content) ~ 'pause' FROM board_memory m
            WHERE m.board_id = b.id AND m.is_chat AND m.content ~* '^\s*/(pause|resume)\s*$'
            ORDER BY m.created_at DESC LIMIT 1
        ), false) AS paused
        FROM boards b
        WHERE b.gateway_id = :gateway_id
          AND (CAST(:board_id AS uuid) IS NULL OR b.id = CAST(:board_id AS uuid))
    ), wanted AS MATERIALIZED (
        SELECT a.id, {AGENT_NAME} AS name, a.board_id,
            row_number() OVER (ORDER BY a.created_at, a.id) AS position, s.paused, s.name AS board
        FROM agents a JOIN served s ON s.id = a.board_id
        WHERE CAST(:agents AS uuid[]) IS NULL OR a.id = ANY(CAST(:agents AS uuid[]))
        UNION ALL (
            SELECT a.id, {AGENT_NAME}, NULL, NULL, false, NULL
            FROM agents a WHERE :include_main AND a.gateway_id = :gateway_id AND a.board_id IS NULL
            ORDER BY a.created_at, a.id LIMIT 1
        )
    ), left_over AS (
        SELECT r.agent_id, r.finished_at FROM provisioner.job_agents r
        WHERE r.job_id = :job_id AND NOT EXISTS (SELECT FROM wanted w WHERE w.id = r.agent_id)
    ), started AS (
        UPDATE provisioner.jobs j
        SET status = 'running', phase = 'look', started_at = now(), updated_at = now(),
            published_at = CASE WHEN CAST(:lease_s AS float) IS NULL THEN now() END,
            next_attempt_at = now() + make_interval(secs => coalesce(CAST(:lease_s AS float), :republish_s)),
            lease_until = now() + make_interval(secs => CAST(:lease_s AS float)),
            generation = generation + (CAST(:lease_s AS float) IS NOT NULL)::int,
            options = :options, organization_id = :organization_id, board_id = :board_id,
            error = NULL, wait_reason = NULL, reason_code = NULL,
            agents_total = (SELECT count(position) FROM wanted) + (SELECT count(*) FROM left_over),
            agents_done = (SELECT count(position) FROM wanted WHERE paused)
                        + (SELECT count(finished_at) FROM left_over)
        WHERE id = :job_id AND status = 'queued' AND NOT EXISTS (
            SELECT FROM provisioner.jobs o
            WHERE o.gateway_id = :gateway_id AND o.kind = 'sync_gateway' AND o.status = 'running')
        RETURNING {CLAIMED}
    ), counted AS (
        UPDATE provisioner.job_agents r SET position = 0
        FROM started, left_over l
        WHERE r.job_id = started.job_id AND r.agent_id = l.agent_id AND r.position IS NULL
    ), rows AS (
        INSERT INTO provisioner.job_agents
            (job_id, agent_id, agent_name, board_id, position, status, phase, outcome, reason, reason_code,
             finished_at)
        SELECT started.job_id, w.id, w.name, w.board_id, w.position,
            CASE WHEN w.paused THEN 'skipped' ELSE 'pending' END,
            CASE WHEN w.paused THEN 'paused' END, CASE WHEN w.paused THEN '{AgentOutcome.PAUSED}' END,
            CASE WHEN w.paused THEN 'Its board ' || quote_literal(w.board) || ' is paused.' END,
            CASE WHEN w.paused THEN '{ReasonCode.BOARD_PAUSED}' END,
            CASE WHEN w.paused THEN now() END
        FROM wanted w, started
        ON CONFLICT (job_id, agent_id) DO UPDATE
        SET agent_name = excluded.agent_name, board_id = excluded.board_id, position = excluded.position,
            status = excluded.status, phase = excluded.phase, outcome = excluded.outcome,
            reason = excluded.reason, reason_code = excluded.reason_code, finished_at = excluded.finished_at
    )
    SELECT * FROM started
""").bindparams(bindparam("options", type_=JSONB))


class OvertakenError(Exception):
    """Another sync of the gateway was started at the same moment; the transaction has failed, and can be
    repeated."""


def start_sync(
    connection: Connection,
    job_id: UUID,
    request: SyncGateway,
    organization_id: UUID | None,
    *,
    lease_s: float | None = None,
) -> JobClaim | None:
    """Start a queued sync and insert the rows of its agents, oldest first. If another sync of the gateway is
    running, have it wait for that and return None.

    The rows of agents on paused boards end at once as skipped; the gateway's main agent gets no position. A
    sync that was set back has its rows already: they are made again, and those of agents that are gone by now
    go on, to end with the reason, also that of a former main agent. ``lease_s``: for how many seconds the
    caller holds the sync's row; None leaves it to whoever gets its message, and to the caller a transaction
    that goes on. Raises OvertakenError, if ``lease_s`` is given.
    """
    values = {
        "job_id": job_id,
        "gateway_id": request.gateway_id,
        "organization_id": organization_id,
        "options": request.options(),
        "board_id": request.board_id,
        "agents": request.agent_ids,
        "include_main": request.include_main,
        "lease_s": lease_s,
        "republish_s": LOST_AFTER_S,
    }
    savepoint = connection.begin_nested() if lease_s is None else nullcontext()
    try:
        with savepoint:
            row = connection.execute(_START, values).one_or_none()
    except IntegrityError as error:  # the index that lets one sync at a time have a gateway
        if lease_s is not None:
            raise OvertakenError from error
        row = None
    if row is None:
        wait_behind(connection, job_id)
        return None
    return JobClaim(**row._mapping)


_NEXT_SYNC = """
    UPDATE provisioner.jobs
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    WHERE id = (
        SELECT id FROM provisioner.jobs
        WHERE gateway_id = :gateway_id AND kind = 'sync_gateway' AND status = 'queued'
          AND published_at IS NULL AND phase = 'waiting'
        ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
    )"""
_FOR_MESSAGE = "id, kind, phase, status, agent_id, board_id, gateway_id"
_END = text(f"""
    WITH ended AS (
        UPDATE provisioner.jobs
        SET status = :status, phase = 'ended', error = :error, reason_code = :code, wait_reason = NULL,
            result = :result, warnings = :warnings,
            finished_at = now(), updated_at = now(), lease_until = NULL, next_attempt_at = NULL,
            published_at = NULL
        WHERE {HELD}
        RETURNING gateway_id AS ended_on
    ), next AS ({_NEXT_SYNC} AND EXISTS (SELECT FROM ended) RETURNING {_FOR_MESSAGE})
    SELECT * FROM ended LEFT JOIN next ON true
""").bindparams(
    bindparam("error", type_=MaskedText),
    bindparam("result", type_=MaskedJson),
    bindparam("warnings", type_=MaskedJson),
)


def end_sync(
    connection: Connection,
    held: JobClaim,
    status: str,
    error: str | None,
    result: Mapping[str, Any],
    warnings: Sequence[str],
    code: ReasonCode | None = None,
) -> list[Message]:
    """End the sync, and mark the next sync of the gateway as published. ``code``: ``error`` for programs.
    Raises LeaseLostError."""
    ending = {
        "status": status,
        "error": error,
        "code": code,
        "result": dict(result),
        "warnings": list(warnings),
    }
    values = {**ending, "gateway_id": held.gateway_id, "republish_s": LOST_AFTER_S}
    row = connection.execute(_END, {**key_of(held), **values}).one_or_none()
    require_held(int(row is not None), held)
    return [] if row is None or row.id is None else [job_message(row)]


_WAIT_BEHIND = text("""
    UPDATE provisioner.jobs
    SET published_at = NULL, phase = 'waiting', updated_at = now(),
        next_attempt_at = now() + make_interval(secs => :sweep_s)
    WHERE id = :job_id AND status = 'queued'
""")


_MARK_NEXT = text(f"{_NEXT_SYNC} RETURNING {_FOR_MESSAGE}")


def mark_next_sync(connection: Connection, gateway_id: UUID) -> list[Message]:
    """Mark the oldest sync of the gateway that waits behind another one as published."""
    rows = connection.execute(_MARK_NEXT, {"gateway_id": gateway_id, "republish_s": LOST_AFTER_S})
    return [job_message(row) for row in rows]


def wait_behind(connection: Connection, job_id: UUID) -> None:
    """Have a queued sync wait until the running one ends; it also tries to start every SWEEP_S seconds."""
    connection.execute(_WAIT_BEHIND, {"job_id": job_id, "sweep_s": SWEEP_S})


_SET_BACK = text(f"""
    UPDATE provisioner.jobs
    SET status = 'queued', phase = NULL, lease_until = NULL, published_at = NULL, started_at = NULL,
        updated_at = now(), agents_total = 0, agents_done = 0, compared_to = NULL, failing_since = NULL,
        error = :reason, wait_reason = :reason, reason_code = :code,
        next_attempt_at = now() + make_interval(secs => CASE WHEN cancel_requested_at IS NULL
            THEN :delay_s ELSE 0 END)
    WHERE {HELD}
""").bindparams(bindparam("reason", type_=MaskedText))


def set_back_sync(
    connection: Connection, held: JobClaim, delay_s: float, reason: str, code: ReasonCode
) -> list[Message]:
    """Queue a sync again that has touched nothing, and mark the gateway's next one as published. Its agents'
    rows are made anew when it starts, in ``delay_s`` seconds. Raises LeaseLostError.

    ``reason``: what it waits for, with ``code`` for programs.
    """
    wait = {"delay_s": delay_s, "reason": reason, "code": code}
    require_held(connection.execute(_SET_BACK, {**key_of(held), **wait}).rowcount, held)
    return mark_next_sync(connection, held.gateway_id)
