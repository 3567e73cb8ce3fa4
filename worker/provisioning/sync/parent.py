"""A sync's own turns: the look, the roster, the main agent, the end (decisions.md D5)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from worker.about import note_ids
from worker.database import DATABASE_AWAY
from worker.errors import PermanentError, TransientError
from worker.gateway.idle_timeout import call_limits
from worker.jobs.lease_renewal import kept_alive
from worker.jobs.messages import Message
from worker.jobs.store.cancelling import CANCELLED
from worker.jobs.store.leases import LeaseLostError, NotClaimed
from worker.jobs.store.sync_jobs import (
    SWEEP_S,
    SyncClaim,
    claim_sync,
    end_sync,
    park_sync,
    renew_sync,
    sync_failing_s,
)
from worker.jobs.store.sync_rows import end_pending, open_main, open_next_rows, recount
from worker.provisioning.services import Services
from worker.provisioning.setbacks import reason_of, refuse_what_kills, try_later
from worker.provisioning.sync.look import look, settle
from worker.provisioning.sync.result import Ending, Row, ending
from worker.provisioning.work import DATABASE_WAIT_S, Parked

log = logging.getLogger(__name__)

_AT_WORK = Parked("its agents are being worked at")


def take_run_turn(services: Services, job_id: UUID) -> Ending | Parked | NotClaimed:
    """Claim the run and take it as far as it goes now. Raises only DATABASE_AWAY."""
    held = claim_sync(services.engine, job_id, lease_s=services.settings.lease_s)
    if isinstance(held, NotClaimed):
        return held
    note_ids(gateway=held.gateway_id)
    try:
        with call_limits(budget_s=services.settings.retry_budget_s, failing_s=held.failing_s):
            return _take(services, held)
    except LeaseLostError as error:
        log.warning("%s", error)
        return NotClaimed.NOTHING_TO_DO


def _take(services: Services, held: SyncClaim) -> Ending | Parked:
    try:
        refuse_what_kills(services, held.attempts, held.phase)
        renew = partial(_renew, services, held)
        with kept_alive(renew, services.settings.lease_s, f"job {held.job_id}"):
            return _go_on(services, held)
    except LeaseLostError:
        raise
    except DATABASE_AWAY as error:
        with suppress(LeaseLostError, SQLAlchemyError):
            _park(services, held, Parked(f"waiting for the database: {error}", DATABASE_WAIT_S))
        raise
    except TransientError as error:
        failing_s = partial(sync_failing_s, held=held)
        try:
            return _park(services, held, try_later(services, held.gateway_id, failing_s, error))
        except PermanentError as given_up:
            return _stop(services, held, reason_of(given_up))
    except PermanentError as error:
        return _stop(services, held, reason_of(error))
    except Exception as error:
        log.exception("failed by a fault of our own")
        return _stop(services, held, reason_of(error))


def _renew(services: Services, held: SyncClaim) -> None:
    with services.engine.begin() as connection:
        renew_sync(connection, held, lease_s=services.settings.lease_s)


def _go_on(services: Services, held: SyncClaim) -> Ending | Parked:
    if held.phase == "look" and not held.cancel_requested:
        return _park(services, held, look(services, held) or _AT_WORK)
    if held.phase == "roster" and not held.cancel_requested:
        return settle(services, held)
    return _look_after(services, held)


def _look_after(services: Services, held: SyncClaim) -> Ending | Parked:
    """See whether all agents are done: then the main one, then the end; else that they go on."""
    messages: list[Message] = []
    finished: Ending | None = None
    with services.engine.begin() as connection:
        if held.cancel_requested:
            end_pending(connection, held.job_id, "cancelled", CANCELLED)
        done = recount(connection, held.job_id)
        main = connection.execute(_MAIN_ROW, {"job_id": held.job_id}).scalar_one_or_none()
        if done and main == "pending":
            messages = open_main(connection, held.job_id)
            park_sync(connection, held, SWEEP_S, "main")
        elif not done or main == "running":
            park_sync(connection, held, SWEEP_S, "main" if done else "agents")
            messages = open_next_rows(connection, held.job_id)[0]
        else:
            finished = _count(connection, held)
            messages = end_sync(connection, held, **vars(finished))
    services.publish(messages)
    return finished or _AT_WORK


def _count(connection: Connection, held: SyncClaim, stopped: str | None = None) -> Ending:
    rows = [Row(**row._mapping) for row in connection.execute(_ROWS, {"job_id": held.job_id})]
    gateway = connection.execute(_GATEWAY, {"gateway_id": held.gateway_id}).one_or_none()
    cancelled = held.cancel_requested and any(row.status == "cancelled" for row in rows)
    return ending(
        held.gateway_id,
        gateway.name if gateway else str(held.gateway_id),
        held.options,
        rows,
        strays=gateway.strays if gateway else (),
        cancelled=cancelled,
        stopped=stopped,
    )


def _stop(services: Services, held: SyncClaim, reason: str) -> Ending | Parked:
    """The run cannot go on: who was not begun is left, and it ends with the last of those at work."""
    with services.engine.begin() as connection:
        end_pending(connection, held.job_id, "not_attempted", reason)
        if not recount(connection, held.job_id):
            park_sync(connection, held, SWEEP_S, "agents")
            return _AT_WORK
        finished = _count(connection, held, stopped=reason)
        messages = end_sync(connection, held, **vars(finished))
    services.publish(messages)
    return finished


def _park(services: Services, held: SyncClaim, parked: Parked) -> Parked:
    if parked.wait_s is not None:
        with services.engine.begin() as connection:
            park_sync(connection, held, parked.wait_s, reason=parked.reason, failing_s=parked.failing_s)
    return parked


_MAIN_ROW = text("SELECT status FROM provisioner.job_agents WHERE job_id = :job_id AND position IS NULL")
_ROWS = text("""
    SELECT agent_id, agent_name, board_id, position IS NULL AS is_main, status, phase, reason, warnings,
        files, roster
    FROM provisioner.job_agents WHERE job_id = :job_id ORDER BY position NULLS LAST
""")
_GATEWAY = text("""
    SELECT name, ARRAY(
        SELECT a.name FROM agents a WHERE a.gateway_id = g.id AND a.board_id IS NULL
        ORDER BY a.created_at, a.id OFFSET 1
    ) AS strays
    FROM gateways g WHERE id = :gateway_id
""")


def shown(result: Mapping[str, Any]) -> str:
    """A sync's result in a few words, for Flower and the log."""
    parts = [
        f"{result['agents_updated']} updated ({result['agents_unchanged']} needed nothing)",
        f"{result['agents_skipped']} skipped",
        f"{result['agents_failed']} failed",
        f"{result['not_attempted']} not attempted",
        f"{result['files_written']} files written",
    ]
    return ", ".join(parts)
