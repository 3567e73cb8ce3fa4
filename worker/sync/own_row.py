"""Executes a job's own row, not one of its agents' rows: a sync's, a roll-out's, and those of their like."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar
from uuid import UUID

from worker.gateway.idle_timeout import call_limits
from worker.jobs.executor import execute, job_row
from worker.jobs.retry_policy import Snooze
from worker.jobs.store.job_leases import JobClaim, claim_job
from worker.jobs.store.leases import NotClaimed
from worker.log_context import note_ids
from worker.roster.circuit_breaker import snooze_after
from worker.runtime.services import Services

_Ended = TypeVar("_Ended")


def execute_own_row(
    services: Services,
    job_id: UUID,
    kind: str,
    step: Callable[[Services, JobClaim], _Ended | Snooze],
    fail: Callable[[Services, JobClaim, Exception], _Ended | Snooze],
    *,
    asks_gateway: bool,
    held: JobClaim | None = None,
) -> _Ended | Snooze | NotClaimed:
    """Claim the row of a job of that kind and do the step that is next.

    ``fail``: ends it after an error that no retry mends; ``asks_gateway``: an error counts against the job's
    gateway; ``held``: the claim, if the row was claimed as it was started. Raises only DATABASE_AWAY.
    """
    lease_s = services.settings.lease_s
    claimed = held or claim_job(services.engine, job_id, kind, lease_s=lease_s)
    if isinstance(claimed, NotClaimed):
        return claimed
    held = claimed
    note_ids(gateway=held.gateway_id)
    row = job_row(held, lease_s)
    with call_limits(budget_s=services.settings.retry_timeout_s, failing_s=held.failing_s):
        return execute(
            services.engine,
            services.retry_policy,
            row,
            partial(step, services, held),
            retry=partial(snooze_after, services, held.gateway_id if asks_gateway else None, row.failing_s),
            fail=partial(fail, services, held),
        )
