"""Executes a leased row: the one engine for agents' rows, syncs and heartbeat jobs (decisions.md D5, D6).

A handler does one row's work while a thread renews the row's lease. The handler returns how the row ended or
a `Snooze`, or raises. What an error means for the row is decided here and in `worker.jobs.retry_policy`; the
caller passes the handler and the functions that snooze or end the row after an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from worker.database import DATABASE_AWAY
from worker.errors import PermanentError, TransientError
from worker.jobs.lease_renewal import lease_renewed
from worker.jobs.retry_policy import RetryPolicy, Snooze
from worker.jobs.states import ReasonCode
from worker.jobs.store.job_agents import Claim, failing_s, park, renew
from worker.jobs.store.job_leases import JobClaim, job_failing_s, park_job, renew_job
from worker.jobs.store.leases import LeaseLostError, NotClaimed
from worker.jobs.store.sync_rows import Progress

log = logging.getLogger(__name__)

_Ended = TypeVar("_Ended")


@dataclass(frozen=True)
class Ended:
    """The outcome of a row that has ended. ``reason``: why it did not succeed, None if it did; ``progress``:
    the progress of the sync that the row belongs to, if any."""

    status: str
    reason: str | None = None
    progress: Progress | None = None


Outcome = Ended | Snooze | NotClaimed


@dataclass(frozen=True)
class LeasedRow:
    """A row of any kind that this worker has claimed.

    ``name``: for the log; ``crashes``: how many workers died while they held it; ``renew``: extends the lease
    to ``lease_s`` seconds from now; ``snooze``: gives the lease back and sets when the row is due again.
    Both raise LeaseLostError. ``failing_s``: reads for how many seconds the row's step has been failing.
    """

    name: str
    crashes: int
    phase: str | None
    lease_s: float
    renew: Callable[[Connection], None]
    snooze: Callable[[Connection, Snooze], None]
    failing_s: Callable[[Connection], float]


def agent_row(held: Claim, lease_s: float) -> LeasedRow:
    """The `LeasedRow` of an agent. Crashes are ignored if its job is being cancelled, so that it can end."""

    return LeasedRow(
        name=f"agent {held.agent_id}",
        crashes=0 if held.cancel_requested else held.crashes,
        phase=held.phase,
        lease_s=lease_s,
        renew=partial(renew, held=held, lease_s=lease_s),
        snooze=partial(_snooze, partial(park, held=held)),
        failing_s=partial(failing_s, held=held),
    )


def job_row(held: JobClaim, lease_s: float) -> LeasedRow:
    """The `LeasedRow` of a sync or heartbeat job itself, not of one of its agents."""

    return LeasedRow(
        name=f"job {held.job_id}",
        crashes=held.crashes,
        phase=held.phase,
        lease_s=lease_s,
        renew=partial(renew_job, held=held, lease_s=lease_s),
        snooze=partial(_snooze, partial(park_job, held=held)),
        failing_s=partial(job_failing_s, held=held),
    )


def _snooze(park: Callable[..., None], connection: Connection, wait: Snooze) -> None:
    park(
        connection,
        delay_s=wait.wait_s or 0.0,
        reason=wait.reason,
        failing_s=wait.failing_s,
        code=wait.code,
        failed=wait.failed,
    )


def execute(
    engine: Engine,
    policy: RetryPolicy,
    row: LeasedRow,
    handler: Callable[[], _Ended | Snooze],
    *,
    retry: Callable[[TransientError], Snooze],
    fail: Callable[[Exception], _Ended | Snooze],
) -> _Ended | Snooze | NotClaimed:
    """Run ``handler`` on a claimed row; return how the row ended, or the snooze in which it waits.

    ``retry`` returns the snooze after a transient error, or raises PermanentError to give the row up;
    ``fail`` ends the row after any other error. Returns NOTHING_TO_DO if the lease was lost. Raises only
    DATABASE_AWAY: the row is then snoozed if Postgres accepts that, else its lease runs out, and the
    dispatcher publishes it again.
    """
    try:
        try:
            outcome = _attempt(engine, policy, row, handler, retry)
        except (LeaseLostError, *DATABASE_AWAY):
            raise
        except Exception as error:
            if not isinstance(error, PermanentError):
                log.error("failed by a fault of our own", exc_info=error)
            return fail(error)
        if isinstance(outcome, Snooze) and outcome.wait_s is not None:
            with engine.begin() as connection:
                row.snooze(connection, outcome)
        return outcome
    except LeaseLostError as error:
        log.warning("%s", error)
        return NotClaimed.NOTHING_TO_DO


def _attempt(
    engine: Engine,
    policy: RetryPolicy,
    row: LeasedRow,
    handler: Callable[[], _Ended | Snooze],
    retry: Callable[[TransientError], Snooze],
) -> _Ended | Snooze:
    """What ``handler`` returned, or the snooze after its transient failure. Raises what ends the row."""

    def keep() -> None:
        with engine.begin() as connection:
            row.renew(connection)

    try:
        policy.require_survivable(row.crashes, row.phase)
        with lease_renewed(keep, row.lease_s, row.name):
            return handler()
    except LeaseLostError:
        raise
    except DATABASE_AWAY as error:
        # Perhaps only a table of Mission Control is unavailable, and the snooze can still be stored.
        snooze = Snooze(
            f"waiting for the database: {error}",
            policy.database_wait_s,
            code=ReasonCode.WAITING_FOR_DATABASE,
        )
        with suppress(LeaseLostError, SQLAlchemyError), engine.begin() as connection:
            row.snooze(connection, snooze)
        raise
    except TransientError as error:
        return retry(error)
