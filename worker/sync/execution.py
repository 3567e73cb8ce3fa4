"""Executes a sync's own row: reads the roster, waits for the roster writer and the agents' rows, and counts
the result (decisions.md D5)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.errors import reason_of
from worker.jobs.messages import Message
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode, Step, code_of
from worker.jobs.store.cancelling import CANCELLED
from worker.jobs.store.codes import outcome, reason_code
from worker.jobs.store.job_leases import JobClaim, park_job
from worker.jobs.store.leases import NotClaimed
from worker.jobs.store.sync_jobs import SWEEP_S, end_sync, set_back_sync
from worker.jobs.store.sync_rows import end_pending, open_main, open_next_rows, recount
from worker.records.sync_windows import WindowClosedError
from worker.runtime.services import Services
from worker.sync.agent_plans import plan_agents, reach, resume_after_writer
from worker.sync.comparison import compare_agents
from worker.sync.own_row import execute_own_row
from worker.sync.result import Ending, Row, ending

log = logging.getLogger(__name__)

_AT_WORK = Snooze("its agents are being worked at")


def execute_sync(
    services: Services, job_id: UUID, held: JobClaim | None = None
) -> Ending | Snooze | NotClaimed:
    """Claim the sync's own row and execute its present phase; return how it ended, or the snooze in which it
    waits. ``held``: the claim, if the row was claimed as it was started. Raises only DATABASE_AWAY."""
    return execute_own_row(services, job_id, "sync_gateway", _run_phase, _fail, asks_gateway=True, held=held)


def _fail(services: Services, held: JobClaim, error: Exception) -> Ending | Snooze:
    return _stop(services, held, reason_of(error), code_of(error))


def _run_phase(services: Services, held: JobClaim) -> Ending | Snooze:
    """Do the steps that are next, as far as nothing has to be waited for."""
    if held.phase == Step.ROSTER and not held.cancel_requested:
        if (snooze := resume_after_writer(services, held)) is not None:
            return snooze
        held = replace(held, phase=Step.COMPARE)
    if held.phase in (Step.LOOK, Step.COMPARE) and not held.cancel_requested:
        try:
            over = _look_and_compare(services, held)
        except WindowClosedError as closed:
            return _set_back(services, held, closed)
        if isinstance(over, Snooze):
            return over
        if over:
            return _finish(services, held)
    return _continue_or_finish(services, held)


def _look_and_compare(services: Services, held: JobClaim) -> Snooze | bool:
    """Whether all rows have ended, after everything that the sync's own row does for its agents."""
    reached = reach(services, held)
    if isinstance(reached, Snooze):
        return reached
    if held.phase != Step.LOOK:
        return compare_agents(services, held, reached)
    planned = plan_agents(services, held, reached)
    return planned if isinstance(planned, Snooze) else compare_agents(services, held, reached, planned)


def _finish(services: Services, held: JobClaim) -> Ending:
    """End a sync of which no row is open."""
    with services.engine.begin() as connection:
        finished = _count(connection, held)
        messages = end_sync(connection, held, **vars(finished))
    services.publish(messages)
    return finished


def _set_back(services: Services, held: JobClaim, closed: WindowClosedError) -> Snooze:
    """Queue the sync again until its gateway's window opens, so that others of the gateway can run."""
    reason, code = str(closed), ReasonCode.WAITING_FOR_WINDOW
    with services.engine.begin() as connection:
        wait_s = closed.wait_from_now(connection)
        messages = set_back_sync(connection, held, wait_s, reason, code)
    services.publish(messages)
    return Snooze(reason, code=code)


def _continue_or_finish(services: Services, held: JobClaim) -> Ending | Snooze:
    """End the sync if all its agents are done. If only the main agent is left, begin it; while others are at
    work, open the next rows."""
    messages: list[Message] = []
    finished: Ending | None = None
    with services.engine.begin() as connection:
        if held.cancel_requested:
            end_pending(connection, held.job_id, "cancelled", CANCELLED, code=ReasonCode.CANCELLED)
        done = recount(connection, held.job_id)
        main = connection.execute(_MAIN_ROW, {"job_id": held.job_id}).scalar_one_or_none()
        if done and main == "pending":
            messages = open_main(connection, held.job_id)
            park_job(connection, held, SWEEP_S, "main")
        elif not done or main == "running":
            park_job(connection, held, SWEEP_S, "main" if done else "agents")
            messages = open_next_rows(connection, held.job_id)[0]
        else:
            finished = _count(connection, held)
            messages = end_sync(connection, held, **vars(finished))
    services.publish(messages)
    return finished or _AT_WORK


def _count(connection: Connection, held: JobClaim, stopped: str | None = None) -> Ending:
    found = connection.execute(_ROWS, {"job_id": held.job_id, "gateway_id": held.gateway_id}).all()
    rows = [Row(*row[2:]) for row in found if row.agent_id is not None]
    cancelled = held.cancel_requested and any(row.status == "cancelled" for row in rows)
    return ending(
        held.gateway_id,
        found[0].gateway or str(held.gateway_id),
        held.options,
        rows,
        without_board=found[0].without_board or (),
        cancelled=cancelled,
        stopped=stopped,
    )


def _stop(services: Services, held: JobClaim, reason: str, code: ReasonCode) -> Ending | Snooze:
    """Stop a sync that cannot go on: no more agents are begun, and it ends once none is at work."""
    with services.engine.begin() as connection:
        end_pending(connection, held.job_id, "not_attempted", reason, code=code)
        if not recount(connection, held.job_id):
            park_job(connection, held, SWEEP_S, "agents")
            return _AT_WORK
        finished = replace(_count(connection, held, stopped=reason), code=code)
        messages = end_sync(connection, held, **vars(finished))
    services.publish(messages)
    return finished


_MAIN_ROW = text("SELECT status FROM provisioner.job_agents WHERE job_id = :job_id AND position IS NULL")
_ROWS = text(f"""
    WITH gateway AS MATERIALIZED (
        SELECT name, ARRAY(
            SELECT a.name FROM agents a WHERE a.gateway_id = g.id AND a.board_id IS NULL
            ORDER BY a.created_at, a.id OFFSET 1
        ) AS without_board
        FROM gateways g WHERE id = :gateway_id
    )
    SELECT gateway.name AS gateway, gateway.without_board, r.agent_id, r.agent_name, r.board_id,
        r.position IS NULL AS is_main, r.status, r.phase, r.reason, r.warnings, r.files, r.roster,
        {outcome("r")} AS outcome, {reason_code("r")} AS reason_code
    FROM (SELECT 1) AS always LEFT JOIN gateway ON true
    LEFT JOIN provisioner.job_agents r ON r.job_id = :job_id
    ORDER BY r.position NULLS LAST
""")


def summary(result: Mapping[str, Any]) -> str:
    """Summarize a sync's result in a few words, for Flower and the log."""
    parts = [
        f"{result['agents_updated']} updated ({result['agents_unchanged']} needed nothing)",
        f"{result['agents_skipped']} skipped",
        f"{result['agents_failed']} failed",
        f"{result['not_attempted']} not attempted",
        f"{result['files_written']} files written",
    ]
    return ", ".join(parts)
