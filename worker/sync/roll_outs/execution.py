"""Executes roll-outs: a change reaches the agents of one or more gateways ring by ring (rules.md 56, 57).

The job's own row is claimed for moments. It holds no agent, slot or intent: the work is done by syncs of a
ring's agents, its children, and while those run, or runs of agents are waited for, the row is parked. Each
step is one transaction, so that a worker that dies loses nothing but the step in hand.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from worker.errors import reason_of
from worker.jobs.executor import Ended, Outcome
from worker.jobs.messages import Message
from worker.jobs.requests import BadRequestError, RollOut
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode, Step, code_of
from worker.jobs.store import roll_outs
from worker.jobs.store.cancelling import CANCELLED, cancel
from worker.jobs.store.job_leases import JobClaim
from worker.jobs.store.roll_outs import Standing
from worker.records.holds import (
    SINCE,
)
from worker.runtime.services import Services
from worker.sync.begin import require_usable
from worker.sync.own_row import execute_own_row
from worker.sync.roll_outs.delivery import (
    POLL_S,
    WINDOW_POLL_S,
    deliver,
    note_checked,
    note_delivered,
    note_delivery,
)
from worker.sync.roll_outs.ending import closed, left_behind, write_end
from worker.sync.roll_outs.health import look_at_health
from worker.sync.roll_outs.planning import make_plan
from worker.sync.roll_outs.waiting import at_work, begin_children, park_at
from worker.worker_row import require_no_older_worker


def begin(connection: Connection, job_id: UUID, request: RollOut) -> list[Message]:
    """Start the queued roll-out with dry runs of all its gateways; returns the messages to send after the
    commit.

    Raises BadRequestError for a gateway, board or user that cannot be meant, and while another roll-out is
    open on one of the gateways; PermanentError while a worker runs that would write over held files.
    """
    gateways = list(dict.fromkeys([request.gateway_id, *(request.gateways or ())]))
    if not request.dry_run:
        require_no_older_worker(connection, SINCE, "files that agents keep as they were")
    if request.board_id is not None and len(gateways) > 1:
        raise BadRequestError("board_id: a board is on one gateway: name no further gateways.")
    organizations = {
        require_usable(connection, request.model_copy(update={"gateway_id": gateway})).organization_id
        for gateway in gateways
    }
    organization = organizations.pop() if len(organizations) == 1 else None
    roll_outs.start_roll_out(connection, job_id, request, organization, gateways)
    looks = {"dry_run": True, "diff": True, "past_roll_outs": True}
    return begin_children(connection, job_id, request.model_dump(), dict.fromkeys(gateways, looks))


def execute_roll_out(services: Services, job_id: UUID) -> Outcome:
    """Claim the job's own row and do the step that is next. Raises only DATABASE_AWAY."""
    return execute_own_row(services, job_id, RollOut.kind, _step, _fail, asks_gateway=False)


def _step(services: Services, held: JobClaim) -> Ended | Snooze:
    with services.engine.connect() as connection:
        standing = roll_outs.standing_of(connection, held.job_id)
        open_children = roll_outs.still_open(connection, standing.children)
    if held.cancel_requested:
        return _abort(services, held, standing, open_children.count)
    if open_children.count:
        with services.engine.begin() as connection:
            if open_children.wait is not None:
                code = ReasonCode.WAITING_FOR_WINDOW
                return park_at(connection, held, held.phase, WINDOW_POLL_S, open_children.wait, code)
            return park_at(connection, held, held.phase, POLL_S, at_work(held, standing))
    if held.phase == Step.LOOK:
        return make_plan(services, held, standing)
    if held.phase == Step.DELIVER and standing.children:
        return note_delivered(services, held, standing)
    if held.phase == Step.DELIVER:
        return deliver(services, held, standing)
    if held.phase == Step.CHECK:
        return note_checked(services, held, standing)
    return look_at_health(services, held, standing)


def _abort(services: Services, held: JobClaim, standing: Standing, open_children: int) -> Ended | Snooze:
    """End the roll-out on request, once the agents that are being worked at are done."""
    with services.engine.begin() as connection:
        if open_children:
            for job in roll_outs.child_jobs(connection, standing.children):
                if job.status in ("queued", "running"):
                    cancel(connection, job.id)
            return park_at(connection, held, held.phase, POLL_S, "ending the syncs of its ring")
        if held.phase == Step.DELIVER and standing.children:
            note_delivery(services, connection, held, standing)
        members = roll_outs.members_of(connection, held.job_id)
        where = f" in ring {standing.ring} of {standing.rings}" if standing.rings else ""
        error = f"{CANCELLED[:-1]}{where}.{left_behind(members)}"
        write_end(connection, held, standing, members, "cancelled", error, ReasonCode.CANCELLED)
    return Ended("cancelled", error)


def _fail(services: Services, held: JobClaim, error: Exception) -> Ended:
    with services.engine.begin() as connection:
        standing = roll_outs.standing_of(connection, held.job_id)
        members = roll_outs.members_of(connection, held.job_id)
        reason = f"{closed(reason_of(error))}{left_behind(members)}"
        write_end(connection, held, standing, members, "failed", reason, code_of(error))
    return Ended("failed", reason)
