"""Executes an agent's row: claims it, runs its handler, and ends or snoozes it (decisions.md D6)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from uuid import UUID

from worker.agents.rollback_job import HELD_ALL_THE_SAME
from worker.agents.token_choice import NoTokenError
from worker.database import single
from worker.errors import reason_of
from worker.gateway.idle_timeout import call_limits
from worker.jobs.executor import Ended, Outcome, agent_row, execute
from worker.jobs.messages import Message
from worker.jobs.requests import AdoptAgent, Rollback
from worker.jobs.retry_policy import GatewayGivenUpError, Snooze
from worker.jobs.states import AgentOutcome, ReasonCode, code_of
from worker.jobs.store.cancelling import CANCELLED
from worker.jobs.store.job_agents import Claim, claim, finish, set_back
from worker.jobs.store.leases import NotClaimed
from worker.jobs.store.releasing import mark_next_in_line
from worker.jobs.store.sync_rows import end_pending, open_next_rows
from worker.log_context import note_ids
from worker.records.adoption import leave_found_place
from worker.records.agent_repository import DeletedAgentError, MovedAgentError
from worker.records.agent_status import give_back, restore
from worker.records.file_records import touched_by
from worker.records.holds import has_held
from worker.records.sync_windows import WindowClosedError
from worker.roster.circuit_breaker import snooze_after
from worker.runtime.gateway_slots import held_slot
from worker.runtime.services import Services

log = logging.getLogger(__name__)

Handler = Callable[[Services, Claim, list[str]], Snooze | None]
"""Does the work of a claimed row and adds to the row's warnings. Returns None once the row has succeeded, or
the snooze in which it waits."""


def execute_in_slot(
    services: Services, gateway_id: UUID | None, message: Message, kind: str, handler: Handler
) -> Outcome:
    """Run `execute_agent_row` for the message's row if this process has a free slot for the gateway.

    Otherwise returns NO_SLOT: the message waits in this process (`worker.runtime.gateway_slots`) and is
    published again once a slot is free. If ``gateway_id`` is None, no slot is needed.
    """
    assert message.job_id is not None
    assert message.agent_id is not None
    work = partial(execute_agent_row, services, message.job_id, message.agent_id, kind, handler)
    return in_slot(services, gateway_id, message, work)


def in_slot(
    services: Services, gateway_id: UUID | None, message: Message, work: Callable[[], Outcome]
) -> Outcome:
    """Do ``work``, for which the message was sent, if this process has a free slot for the gateway; otherwise
    as `execute_in_slot`."""
    if gateway_id is None:
        return work()
    released: list[Message] = []
    try:
        with held_slot(services.slots, gateway_id, message, released) as has_slot:
            return work() if has_slot else NotClaimed.NO_SLOT
    finally:
        services.publish(released)


def execute_agent_row(
    services: Services, job_id: UUID, agent_id: UUID, kind: str, handler: Handler
) -> Outcome:
    """Claim the agent's row, if its job is of that kind, and run the handler on it; return the outcome.

    If the row has ended, the next job that waits for the agent is published, and in a sync also the next
    agent's row. Raises only DATABASE_AWAY: the row is then parked, or its lease runs out, and the dispatcher
    publishes it again.
    """
    held = claim(services.engine, job_id, agent_id, kind, lease_s=services.settings.lease_s)
    if isinstance(held, NotClaimed):
        return held
    note_ids(agent=agent_id, gateway=held.gateway_id)
    budget_s = services.settings.retry_timeout_s
    with call_limits(partial(_idle_timeout_s, services, held), budget_s, held.failing_s):
        outcome = _execute(services.for_gateway(held.gateway_id, in_sync=not held.single), held, handler)
    if not isinstance(outcome, Ended):
        return outcome
    with single(services.engine) if held.single else services.engine.begin() as connection:
        messages = mark_next_in_line(connection, agent_id)
        if not held.single:
            more, progress = open_next_rows(connection, job_id)
            messages, outcome = messages + more, replace(outcome, progress=progress)
    services.publish(messages)
    return outcome


def _idle_timeout_s(services: Services, held: Claim) -> float | None:
    """Idle timeout, in seconds, for calls to the gateway; None (no limit) for a single job while no message
    waits for its slot."""
    if held.single and (held.gateway_id is None or not services.slots.has_waiting(held.gateway_id)):
        return None
    return services.retry_policy.idle_timeout_after(held.tries)


def _execute(services: Services, held: Claim, handler: Handler) -> Outcome:
    warnings = list(held.warnings)

    def work() -> Ended | Snooze:
        if held.cancel_requested:
            return _end(services, held, "cancelled", CANCELLED, warnings, ReasonCode.CANCELLED)
        try:
            return handler(services, held, warnings) or Ended("succeeded")
        except WindowClosedError as closed:
            return _set_back(services, held, closed)

    row = agent_row(held, services.settings.lease_s)
    return execute(
        services.engine,
        services.retry_policy,
        row,
        work,
        retry=partial(snooze_after, services, held.gateway_id, row.failing_s),
        fail=lambda error: _fail(services, held, error, warnings),
    )


def _set_back(services: Services, held: Claim, closed: WindowClosedError) -> Snooze:
    """Have a row that has touched nothing wait for a sync window, and hold nothing meanwhile."""
    reason, code = str(closed), ReasonCode.WAITING_FOR_WINDOW
    with services.engine.begin() as connection:
        wait_s = closed.wait_from_now(connection)
        give_back(connection, held.job_id, held.agent_id)
        set_back(connection, held, wait_s, reason, code)
        messages = mark_next_in_line(connection, held.agent_id)
    services.publish(messages)
    return Snooze(reason, code=code)


def _fail(services: Services, held: Claim, error: Exception, warnings: list[str]) -> Ended:
    """End the row as ``error`` requires.

    In a sync, an agent that was deleted or moved or has no token is skipped, and a gateway that is given up
    ends all rows that have not begun.
    """
    reason, code = reason_of(error), code_of(error)
    if not held.single:
        if isinstance(error, GatewayGivenUpError):
            return _give_up(services, held, reason, warnings, code)
        if isinstance(error, DeletedAgentError):
            reason = "It was deleted meanwhile."
            return _end(services, held, "skipped", reason, warnings, code, AgentOutcome.DELETED)
        if isinstance(error, MovedAgentError):
            return _end(services, held, "skipped", reason, warnings, code, AgentOutcome.MOVED)
        if isinstance(error, NoTokenError):
            return _end(services, held, "skipped", reason, warnings, code)
    return _end(services, held, "failed", reason, warnings, code)


def _give_up(services: Services, held: Claim, reason: str, warnings: list[str], code: ReasonCode) -> Ended:
    """End a sync's rows after its gateway stayed away (rules.md 33).

    Rows that have not begun count as not attempted, and so does this one if none of its files was written.
    """
    with services.engine.begin() as connection:
        end_pending(connection, held.job_id, "not_attempted", reason, code=code)
        touched = touched_by(connection, held.agent_id, held.job_id)
    return _end(services, held, "failed" if touched else "not_attempted", reason, warnings, code)


def _end(
    services: Services,
    held: Claim,
    status: str,
    reason: str,
    warnings: list[str],
    code: ReasonCode,
    outcome: AgentOutcome | None = None,
) -> Ended:
    """End the row without success; a single job restores the agent's earlier status (rules.md 38)."""
    with services.engine.begin() as connection:
        if held.kind == Rollback.kind and has_held(connection, held.job_id):
            warnings = [*warnings, HELD_ALL_THE_SAME]
        finish(connection, held, status, reason=reason, warnings=warnings, code=code, outcome=outcome)
        if held.kind == AdoptAgent.kind:
            leave_found_place(connection, held.job_id, held.agent_id)
        if held.single:
            restore(connection, held.job_id, held.agent_id)
    return Ended(status, reason)
