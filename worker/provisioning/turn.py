"""One worker's turn with an agent's row: claim, work, and an end, whichever way it goes (decisions.md D6)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from worker.about import note_ids
from worker.database import DATABASE_AWAY, single
from worker.errors import PermanentError, TransientError
from worker.gateway.idle_timeout import call_limits
from worker.jobs.lease_renewal import kept_alive
from worker.jobs.messages import Message
from worker.jobs.store.cancelling import CANCELLED
from worker.jobs.store.job_agents import (
    Claim,
    claim,
    failing_s,
    finish,
    park,
    renew,
)
from worker.jobs.store.leases import LeaseLostError, NotClaimed
from worker.jobs.store.releasing import mark_next_in_line
from worker.jobs.store.sync_rows import Progress, end_pending, open_next_rows
from worker.provisioning.agent_job import PROVISION, PROVISION_MAIN, SYNC, UPDATE, carry_out
from worker.provisioning.agent_status import restore
from worker.provisioning.credentials import NoTokenError
from worker.provisioning.delete_job import delete
from worker.provisioning.facts import DeletedAgentError, MovedAgentError
from worker.provisioning.file_records import touched_by
from worker.provisioning.outage import GivenUpError
from worker.provisioning.seats import seated
from worker.provisioning.services import Services
from worker.provisioning.setbacks import reason_of, refuse_what_kills, try_later
from worker.provisioning.work import DATABASE_WAIT_S, Parked

log = logging.getLogger(__name__)

WORK: Mapping[str, Callable[[Services, Claim, list[str]], Parked | None]] = {
    "provision_agent": partial(carry_out, verb=PROVISION),
    "update_agent": partial(carry_out, verb=UPDATE),
    "delete_agent": delete,
    "provision_gateway_main": partial(carry_out, verb=PROVISION_MAIN),
    "sync_gateway": partial(carry_out, verb=SYNC),
}


SILENCE_IN_A_RUN_S = 3.0
"""How long one agent of many waits in its slot for a gateway that says nothing; half as long again at each
further try, up to MOST_SILENCE_S: one that is busy for longer than that at a time, as 2026.9.6 is with the
heartbeats of a hundred agents, would never be heard."""
MOST_SILENCE_S = 20.0


@dataclass(frozen=True)
class Ended:
    """The row has ended; ``reason`` is the sentence of one that did not succeed, ``progress`` says how far
    the job of many is that it belongs to."""

    status: str
    reason: str | None = None
    progress: Progress | None = None


Outcome = Ended | Parked | NotClaimed


def take_seat_and_turn(services: Services, gateway_id: UUID | None, message: Message) -> Outcome:
    """As `take_turn` for the message's row, if its gateway has a slot left here; else the message waits in
    this process, and is published again once one is free."""
    assert message.job_id is not None
    assert message.agent_id is not None
    if gateway_id is None:
        return take_turn(services, message.job_id, message.agent_id)
    called: list[Message] = []
    try:
        with seated(services.seats, gateway_id, message, called) as has_seat:
            if not has_seat:
                return NotClaimed.NO_SEAT
            return take_turn(services, message.job_id, message.agent_id)
    finally:
        services.publish(called)


def take_turn(services: Services, job_id: UUID, agent_id: UUID) -> Outcome:
    """Claim the agent's row and take it as far as it goes now; where that is its end, call the next job that
    waits for the agent, and the next agent that waits in a job of many.

    Raises only DATABASE_AWAY: then the row is parked, or its lease runs out, and the clock brings it back.
    """
    held = claim(services.engine, job_id, agent_id, lease_s=services.settings.lease_s)
    if isinstance(held, NotClaimed):
        return held
    note_ids(agent=agent_id, gateway=held.gateway_id)
    budget_s = services.settings.retry_budget_s
    with call_limits(partial(_silence_s, services, held), budget_s, held.failing_s):
        outcome = _take(services.sharing(held.gateway_id, in_a_run=not held.single), held)
    if not isinstance(outcome, Ended):
        return outcome
    with single(services.engine) if held.single else services.engine.begin() as connection:
        messages = mark_next_in_line(connection, agent_id)
        if not held.single:
            more, progress = open_next_rows(connection, job_id)
            messages, outcome = messages + more, replace(outcome, progress=progress)
    services.publish(messages)
    return outcome


def silence_s(claims: int) -> float:
    """Seconds of silence that the so manieth claim of an agent of many puts up with."""
    return float(min(MOST_SILENCE_S, SILENCE_IN_A_RUN_S * 1.5 ** min(claims - 1, 10)))


def _silence_s(services: Services, held: Claim) -> float | None:
    """A single job waits for a silent gateway as long as it likes, unless others wait for its slot."""
    if held.single and (held.gateway_id is None or not services.seats.crowded(held.gateway_id)):
        return None
    return silence_s(held.generation)


def _take(services: Services, held: Claim) -> Outcome:
    try:
        return _attempt(services, held, list(held.warnings))
    except LeaseLostError as error:
        log.warning("%s", error)
        return NotClaimed.NOTHING_TO_DO


def _attempt(services: Services, held: Claim, warnings: list[str]) -> Outcome:
    if held.cancel_requested:
        return _end(services, held, "cancelled", CANCELLED, warnings)
    try:
        refuse_what_kills(services, held.attempts, held.phase)
        with kept_alive(partial(_renew, services, held), services.settings.lease_s, f"agent {held.agent_id}"):
            parked = WORK[held.kind](services, held, warnings)
    except LeaseLostError:
        raise
    except DATABASE_AWAY as error:
        _say_why(services, held, error)
        raise
    except TransientError as error:
        try:
            return _park(
                services, held, try_later(services, held.gateway_id, partial(failing_s, held=held), error)
            )
        except PermanentError as given_up:
            return _fail(services, held, given_up, warnings)
    except Exception as error:
        return _fail(services, held, error, warnings)
    if parked is None:
        return Ended("succeeded")
    return _park(services, held, parked)


def _fail(services: Services, held: Claim, error: Exception, warnings: list[str]) -> Outcome:
    """End the row as the error says. In a job of many, an agent that is gone or has no token was skipped, and
    one whose gateway is given up takes all who wait with it."""
    reason = reason_of(error)
    if not isinstance(error, PermanentError):
        log.error("failed by a fault of our own", exc_info=error)
    elif not held.single:
        if isinstance(error, GivenUpError):
            return _give_up(services, held, reason, warnings)
        if isinstance(error, DeletedAgentError):
            return _end(services, held, "skipped", "It was deleted meanwhile.", warnings, phase="deleted")
        if isinstance(error, MovedAgentError):
            return _end(services, held, "skipped", reason, warnings, phase="deleted")
        if isinstance(error, NoTokenError):
            return _end(services, held, "skipped", reason, warnings)
    return _end(services, held, "failed", reason, warnings)


def _say_why(services: Services, held: Claim, error: Exception) -> None:
    """Give the row back at once, with what the database said, where the ledger itself can be written: what
    is not to be had is a table of Mission Control's. Else its lease runs out."""
    with suppress(LeaseLostError, SQLAlchemyError), services.engine.begin() as connection:
        park(connection, held, DATABASE_WAIT_S, f"waiting for the database: {error}")


def _renew(services: Services, held: Claim) -> None:
    with services.engine.begin() as connection:
        renew(connection, held, lease_s=services.settings.lease_s)


def _park(services: Services, held: Claim, parked: Parked) -> Outcome:
    if parked.wait_s is not None:
        with services.engine.begin() as connection:
            park(connection, held, parked.wait_s, parked.reason, failing_s=parked.failing_s)
    return parked


def _give_up(services: Services, held: Claim, reason: str, warnings: list[str]) -> Outcome:
    """The gateway stayed away: no more agents are begun, and what was not touched counts as not attempted
    (rules.md 33)."""
    with services.engine.begin() as connection:
        end_pending(connection, held.job_id, "not_attempted", reason)
        touched = touched_by(connection, held.agent_id, held.job_id)
    return _end(services, held, "failed" if touched else "not_attempted", reason, warnings)


def _end(
    services: Services,
    held: Claim,
    status: str,
    reason: str,
    warnings: list[str],
    phase: str | None = None,
) -> Outcome:
    """End the row without success, and give the agent the status back that it had (rules.md 38)."""
    with services.engine.begin() as connection:
        finish(connection, held, status, reason=reason, warnings=warnings, phase=phase)
        if held.single:
            restore(connection, held.job_id, held.agent_id)
    return Ended(status, reason)
