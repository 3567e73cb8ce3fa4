"""What becomes of work that a failure stopped: it comes again later, or is given up (decisions.md D6, D7)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import Connection

from worker.database import DATABASE_AWAY
from worker.drain import draining
from worker.errors import ProvisionerError, TransientError, reason_of
from worker.gateway.errors import OUTAGES
from worker.gateway.idle_timeout import failing_for_s, has_been_answered
from worker.gateway.roster import RosterEntry, RosterPlan
from worker.jobs.retry_policy import Snooze
from worker.provisioning.outage import note_failure
from worker.provisioning.services import Services

log = logging.getLogger(__name__)


def try_later(
    services: Services,
    gateway_id: UUID | None,
    failing_s: Callable[[Connection], float],
    error: TransientError,
) -> Snooze:
    """When to come again after what stayed transient for longer than a slot waits. ``failing_s`` reads from
    the row for how long its step has been failing. A worker that is stopping hands the row on at once.

    Raises GatewayGivenUpError and PermanentError as `RetryPolicy` does; the tries themselves count.
    """
    policy = services.retry_policy
    if draining.is_set():
        return Snooze(f"this worker is stopping: {error}", 0.0)
    if not isinstance(error, OUTAGES) or gateway_id is None:
        with services.engine.connect() as connection:
            return policy.after_failure(error, max(failing_s(connection), failing_for_s()))
    with services.engine.begin() as connection:
        outage = note_failure(
            connection,
            gateway_id,
            error,
            policy.timeout_s,
            took_s=failing_for_s(),
            address=error.address,
        )
        # One that lets us in each time, and then breaks off, is never away for long.
        since_s = max(failing_s(connection), failing_for_s()) if has_been_answered() else None
    return policy.after_outage(error, outage.down_for_s, outage.wait_s, since_s)


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
