"""What becomes of work that a failure stopped: it comes again later, or is given up (decisions.md D6, D7)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import Connection

from worker.database import DATABASE_AWAY
from worker.drain import draining
from worker.errors import PermanentError, ProvisionerError, TransientError, as_sentence
from worker.gateway.backoff import jittered
from worker.gateway.errors import OUTAGES
from worker.gateway.idle_timeout import failing_for_s, has_been_answered
from worker.gateway.roster import RosterEntry, RosterPlan
from worker.provisioning.outage import LONGEST_PROBE_WAIT_S, GivenUpError, note_failure, unreachable
from worker.provisioning.services import Services
from worker.provisioning.work import Parked

log = logging.getLogger(__name__)

_HEEDED_S = 60.0
"""So long a wait that a gateway asks for is kept, however little is left of the budget: in that time every
release counts calls anew."""


def try_later(
    services: Services,
    gateway_id: UUID | None,
    failing_s: Callable[[Connection], float],
    error: TransientError,
) -> Parked:
    """When to come again after what stayed transient for longer than a slot waits. ``failing_s``: how long
    the work's row says that its step has been failing. A worker that is stopping hands it on at once.

    Raises GivenUpError once the gateway has been away, PermanentError once the work has been tried, for the
    whole of RETRY_BUDGET_S (rules.md 45); the tries themselves count.
    """
    budget_s = services.settings.retry_budget_s
    if draining.is_set():
        return Parked(f"this worker is stopping: {error}", 0.0)
    if isinstance(error, OUTAGES) and gateway_id is not None:
        with services.engine.begin() as connection:
            outage = note_failure(
                connection, gateway_id, error, budget_s, took_s=failing_for_s(), address=error.address
            )
            # One that lets us in each time, and then breaks off, is never away for long.
            since_s = max(failing_s(connection), failing_for_s()) if has_been_answered() else None
        if outage.outlasts(budget_s) or (since_s is not None and since_s >= budget_s):
            raise GivenUpError(unreachable(budget_s, str(error)))
        wait_s = outage.wait_s
        most_s = left_s = budget_s - outage.down_for_s
    else:
        with services.engine.connect() as connection:
            since_s = max(failing_s(connection), failing_for_s())
        if since_s >= budget_s:
            raise PermanentError(f"Given up after {budget_s:g} seconds: {error}")
        wait_s, left_s = min(LONGEST_PROBE_WAIT_S, max(0.75, since_s / 4)), budget_s - since_s
        most_s = max(left_s, _HEEDED_S)
    asked_s = min(error.retry_after_s or 0.0, most_s)
    return Parked(str(error), max(0.1, min(jittered(wait_s), left_s), asked_s), since_s)


def refuse_what_kills(services: Services, attempts: int, phase: str | None) -> None:
    """Raise PermanentError for work at which CRASH_LIMIT workers died one after another."""
    if attempts >= services.settings.crash_limit:
        raise PermanentError(f"Given up: {attempts} workers died while at work on it, in phase {phase}.")


def plan_apart(
    plan: Callable[[Sequence[RosterEntry]], RosterPlan], wanted: Sequence[RosterEntry]
) -> tuple[RosterPlan, dict[str, str]]:
    """The plan for all ``wanted`` entries that can be planned, and why each of the others cannot, by its
    OpenClaw id: what one agent's row makes of us must not stop its gateway."""
    try:
        return plan(wanted), {}
    except (ProvisionerError, *DATABASE_AWAY):
        raise
    except Exception:
        log.exception("a roster entry is a fault of our own")
    refused: dict[str, str] = {}
    for entry in wanted:
        try:
            plan([entry])
        except Exception as error:
            refused[entry.openclaw_id] = f"Agent {entry.name!r}: {reason_of(error)}"
    return plan([entry for entry in wanted if entry.openclaw_id not in refused]), refused


def reason_of(error: Exception) -> str:
    """The sentence on record for what ended by this: of a fault of our own, its type and where to look."""
    if isinstance(error, PermanentError):
        return as_sentence(str(error))
    return f"Internal error ({type(error).__name__}): see the worker's log of this job."
