"""One worker's turn with one agent's row: claim, work, and an end for every way it can go (design D6)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from worker.database import DATABASE_AWAY
from worker.drain import draining
from worker.errors import PermanentError, TransientError
from worker.gateway.retry import jittered
from worker.jobs.keeper import kept_alive
from worker.jobs.ledger import Claim, LeaseLostError, NotClaimed, claim, end_if_done, finish, park, renew
from worker.provisioning.agent_job import PROVISION, PROVISION_MAIN, UPDATE, carry_out
from worker.provisioning.agent_status import restore
from worker.provisioning.delete_job import delete
from worker.provisioning.heartbeats import sync_heartbeat
from worker.provisioning.outage import LONGEST_PROBE_WAIT_S, OUTAGES, note_failure, unreachable
from worker.provisioning.services import Services
from worker.provisioning.work import Parked

log = logging.getLogger(__name__)

WORK: Mapping[str, Callable[[Services, Claim], Parked | None]] = {
    "provision_agent": partial(carry_out, verb=PROVISION),
    "update_agent": partial(carry_out, verb=UPDATE),
    "delete_agent": delete,
    "provision_gateway_main": partial(carry_out, verb=PROVISION_MAIN),
    "sync_heartbeats": sync_heartbeat,
}


@dataclass(frozen=True)
class Ended:
    """The row has ended; ``reason`` is the sentence of one that did not succeed."""

    status: str
    reason: str | None = None


Outcome = Ended | Parked | NotClaimed


def take_turn(services: Services, job_id: UUID, agent_id: UUID) -> Outcome:
    """Claim the agent's row and take it as far as it goes now.

    Raises only DATABASE_AWAY: then the lease runs out and the clock brings the row back.
    """
    held = claim(services.engine, job_id, agent_id, lease_s=services.settings.lease_s)
    if isinstance(held, NotClaimed):
        return held
    try:
        if held.cancel_requested:
            return _end(services, held, "cancelled", "cancelled on request")
        if held.attempts >= services.settings.crash_limit:
            raise PermanentError(
                f"Given up: {held.attempts} workers died while at work on it, in phase {held.phase}."
            )
        with kept_alive(partial(_renew, services, held), services.settings.lease_s, f"agent {agent_id}"):
            parked = WORK[held.kind](services, held)
    except LeaseLostError as error:
        log.warning("%s", error)
        return NotClaimed.NOTHING_TO_DO
    except DATABASE_AWAY:
        raise
    except TransientError as error:
        return _try_later(services, held, error)
    except PermanentError as error:
        return _end(services, held, "failed", str(error))
    except Exception as error:
        log.exception("job %s failed on agent %s", job_id, agent_id)
        reason = f"Internal error ({type(error).__name__}): see the worker's log of this job."
        return _end(services, held, "failed", reason)
    if parked is None:
        return Ended("succeeded")
    return _park(services, held, parked)


def _renew(services: Services, held: Claim) -> None:
    with services.engine.begin() as connection:
        renew(connection, held, lease_s=services.settings.lease_s)


def _try_later(services: Services, held: Claim, error: TransientError) -> Outcome:
    """What stayed transient for longer than a slot waits: park the row, or end it once its time is spent."""
    budget_s = services.settings.retry_budget_s
    if draining.is_set():
        return _park(services, held, Parked(f"this worker is stopping: {error}", 0.0))
    if isinstance(error, OUTAGES) and held.gateway_id is not None:
        with services.engine.begin() as connection:
            outage = note_failure(connection, held.gateway_id, error, budget_s)
        if outage.outlasts(budget_s):
            return _end(services, held, "failed", unreachable(budget_s, str(error)))
        wait_s = outage.wait_s
    else:
        if held.age_s > budget_s:
            return _end(services, held, "failed", f"Given up after {budget_s:g} seconds: {error}")
        wait_s = min(LONGEST_PROBE_WAIT_S, max(0.75, held.age_s / 4))
    return _park(services, held, Parked(str(error), max(jittered(wait_s), error.retry_after_s or 0.0)))


def _park(services: Services, held: Claim, parked: Parked) -> Outcome:
    if parked.wait_s is not None:
        try:
            with services.engine.begin() as connection:
                park(connection, held, parked.wait_s, parked.reason)
        except LeaseLostError as error:
            log.warning("%s", error)
            return NotClaimed.NOTHING_TO_DO
    return parked


def _end(services: Services, held: Claim, status: str, reason: str) -> Outcome:
    """End the row without success, and give the agent the status back that it had (behaviour 38)."""
    reason = reason[:1].upper() + reason[1:]
    try:
        with services.engine.begin() as connection:
            finish(connection, held, status, reason=reason, warnings=list(held.warnings), files=held.files)
            if not held.single:
                end_if_done(connection, held.job_id)
            restore(connection, held.job_id, held.agent_id)
    except LeaseLostError as error:
        log.warning("%s", error)
        return NotClaimed.NOTHING_TO_DO
    return Ended(status, reason)
