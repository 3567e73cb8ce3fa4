"""Executes roll-outs: a change reaches the agents of one or more gateways ring by ring (rules.md 56, 57).

The job's own row is claimed for moments. It holds no agent, slot or intent: the work is done by syncs of a
ring's agents, its children, and while those run, or runs of agents are waited for, the row is parked. Each
step is one transaction, so that a worker that dies loses nothing but the step in hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from worker.errors import PermanentError, TransientError, as_sentence, reason_of
from worker.gateway.dialect import Dialect
from worker.gateway.idle_timeout import call_limits
from worker.jobs.executor import Ended, Outcome, execute, job_row
from worker.jobs.messages import Message, kind_message
from worker.jobs.requests import BadRequestError, RollbackJob, RollOut, SyncGateway, canary_of, seconds_of
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import AgentOutcome, ReasonCode, RolloutState, Step, code_of
from worker.jobs.store import roll_outs
from worker.jobs.store.cancelling import CANCELLED, cancel
from worker.jobs.store.job_leases import JobClaim, claim_job
from worker.jobs.store.jobs import enqueue
from worker.jobs.store.leases import NotClaimed
from worker.jobs.store.roll_outs import Member, Standing
from worker.log_context import note_ids
from worker.records.gateway_repository import require_gateway
from worker.records.holds import (
    SINCE,
    hold_as_delivered,
    hold_entries_as_found,
    release_ended_roll_outs,
    release_holds,
)
from worker.roster.circuit_breaker import snooze_after
from worker.runtime.services import Services
from worker.sync.begin import begin as begin_sync
from worker.sync.begin import require_usable
from worker.sync.result import Row
from worker.sync.ring_health import look_at_ring
from worker.sync.rings import Changing, RingPlan, change_of, plan_rings, restarts, stand_in
from worker.worker_row import require_no_older_worker
from worker.workspace.template_sources import sources_sha256

POLL_S = 1.0
"""Seconds after which a roll-out looks again whether its children have ended."""
PAUSED_POLL_S = 60.0
"""Seconds after which a paused roll-out looks again unprompted; to resume it makes its row due."""
SHORTEST_LOOK_S, LONGEST_LOOK_S = 2.0, 30.0
"""Limits on the seconds between two looks at the runs of a ring's agents; within them a quarter of the time
for which they have had the change."""
_NAMES = 5
_NOTHING_ANEW = {"rotate_tokens": False, "force_bootstrap": False, "reset_sessions": False}
"""Options that would have a dry run want to do again what was just done."""
_OnGateway = TypeVar("_OnGateway", Changing, Member)


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
    return _begin_children(connection, job_id, request.model_dump(), dict.fromkeys(gateways, looks))


def execute_roll_out(services: Services, job_id: UUID) -> Outcome:
    """Claim the job's own row and do the step that is next. Raises only DATABASE_AWAY."""
    lease_s = services.settings.lease_s
    held = claim_job(services.engine, job_id, RollOut.kind, lease_s=lease_s)
    if isinstance(held, NotClaimed):
        return held
    note_ids(gateway=held.gateway_id)
    row = job_row(held, lease_s)
    with call_limits(budget_s=services.settings.retry_timeout_s, failing_s=held.failing_s):
        return execute(
            services.engine,
            services.retry_policy,
            row,
            partial(_step, services, held),
            retry=partial(snooze_after, services, None, row.failing_s),
            fail=partial(_fail, services, held),
        )


def _begin_children(
    connection: Connection,
    job_id: UUID,
    options: Mapping[str, Any],
    changes: Mapping[UUID, Mapping[str, Any]],
) -> list[Message]:
    """Enqueue and start a sync of each of these gateways, with the options of the roll-out's request and
    these changes, and wait for them from now on; returns the messages to send after the commit."""
    shared = {name: value for name, value in options.items() if name in SyncGateway.model_fields}
    shared |= {"request_id": None, "webhook": None, "requested_by": "roll-out"}
    messages, children = [], []
    for gateway, own in changes.items():
        request = SyncGateway.model_validate({**shared, "gateway_id": gateway, **own})
        child = enqueue(connection, request, parent=job_id).job_id
        # Started here: the message of a queued job counts as lost much later than that of one that runs.
        if begin_sync(connection, child, request):
            messages.append(kind_message(SyncGateway.kind, child, gateway))
        children.append(child)
    roll_outs.set_children(connection, job_id, children)
    return messages


def _step(services: Services, held: JobClaim) -> Ended | Snooze:
    with services.engine.connect() as connection:
        standing = roll_outs.standing_of(connection, held.job_id)
        open_children = roll_outs.still_open(connection, standing.children)
    if held.cancel_requested:
        return _abort(services, held, standing, open_children)
    if open_children:
        with services.engine.begin() as connection:
            return _park(connection, held, held.phase, POLL_S, _at_work(held, standing))
    if held.phase == Step.LOOK:
        return _make_plan(services, held, standing)
    if held.phase == Step.DELIVER and standing.children:
        return _note_delivered(services, held, standing)
    if held.phase == Step.DELIVER:
        return _deliver(services, held, standing)
    if held.phase == Step.CHECK:
        return _note_checked(services, held, standing)
    return _look_at_health(services, held, standing)


def _park(
    connection: Connection,
    held: JobClaim,
    phase: str,
    delay_s: float,
    reason: str,
    code: ReasonCode = ReasonCode.WAITING_FOR_RING,
) -> Snooze:
    roll_outs.park_roll_out(connection, held, phase, delay_s, reason, code)
    return Snooze(reason, code=code)


def _at_work(held: JobClaim, standing: Standing) -> str:
    if held.phase == Step.LOOK:
        return "looking at what changes for whom"
    doing = "delivering to its agents" if held.phase == Step.DELIVER else "reading back what its agents have"
    return f"ring {standing.ring} of {standing.rings}: {doing}"


# --- the plan


@dataclass(frozen=True)
class _Look:
    """What the dry runs found."""

    changing: Sequence[Changing]
    names: Mapping[UUID, str]
    warnings: Sequence[str]


def _make_plan(services: Services, held: JobClaim, standing: Standing) -> Ended | Snooze:
    """Put the agents that change into rings, and hold all of them as they are. Raises PermanentError, and has
    touched nothing then, if a gateway or a canary cannot be looked at."""
    with services.engine.connect() as connection:
        look = _look(connection, standing)
    if not look.changing:
        result = _result(held, standing, [], look.names, {})
        return _end(services, held, "succeeded", result, warnings=look.warnings)
    plan = plan_rings(look.changing, canary_of(str(held.options["canary"])))
    counted = restarts(plan.rings, _restarting(services, look.changing))
    planned = _planned(plan, look.names, counted)
    if held.option("dry_run"):
        members = [_member(each, ring) for ring, each in _numbered(plan)]
        result = _result(held, standing, members, look.names, planned)
        return _end(services, held, "succeeded", result, warnings=look.warnings)
    sources = sources_sha256(services.settings.templates_dir)
    with services.engine.begin() as connection:
        release_ended_roll_outs(connection, standing.gateways)
        for gateway, agents in _by_gateway(look.changing).items():
            _hold(connection, held, gateway, agents, sources)
        members = [_member(each, ring) for ring, each in _numbered(plan)]
        roll_outs.add_members(connection, held.job_id, members, len(plan.rings))
        roll_outs.store_plan(connection, held.job_id, {**planned, "warnings": list(look.warnings)})
        return _park(connection, held, Step.DELIVER, 0.0, f"ring 1 of {len(plan.rings)} is next")


def _look(connection: Connection, standing: Standing) -> _Look:
    jobs = roll_outs.child_jobs(connection, standing.children)
    rows = roll_outs.child_rows(connection, standing.children)
    names = {job.gateway_id: str(job.gateway_name) for job in jobs}
    for job in jobs:
        own = [row for row in rows if row.gateway_id == job.gateway_id]
        unseen = [row for row in own if row.status in ("not_attempted", "cancelled")]
        if job.status != "succeeded" and (unseen or not own):
            raise PermanentError(
                f"Nothing was rolled out, because gateway {job.gateway_name!r} could not be looked at:"
                f" {as_sentence(job.error or job.status)} Once `provisioner doctor` finds it well, ask again,"
                " or leave it out.",
                reason_code=job.reason_code,
            )
    left = [f"{row.agent_name}: {row.reason}" for row in rows if row.status == "skipped" and not row.outcome]
    warnings = [f"Left out: {each}" for each in left[:_NAMES]]
    if len(left) > _NAMES:
        warnings.append(f"Left out: {len(left) - _NAMES} more; a sync says why of each.")
    changing = [each for each in map(change_of, rows) if each is not None]
    failing = [each for each in changing if each.fails]
    warnings += [f"{each.name} will fail: {as_sentence(each.fails or '')}" for each in failing[:_NAMES]]
    if len(failing) > _NAMES:
        warnings.append(f"{len(failing) - _NAMES} more will fail.")
    return _Look(changing, names, warnings)


def _restarting(services: Services, changing: Sequence[Changing]) -> list[UUID]:
    """The gateways of these agents that a config write restarts, or may."""
    found = []
    for gateway_id in {each.gateway_id for each in changing if each.entry}:
        with services.engine.connect() as connection:
            gateway = require_gateway(connection, gateway_id)
        try:
            hello = services.clients.client(gateway.address).hello()
        except TransientError:
            found.append(gateway_id)
            continue
        if Dialect.from_hello(hello.server_version, hello.methods).restarts:
            found.append(gateway_id)
    return found


def _planned(plan: RingPlan, names: Mapping[UUID, str], restarting: Mapping[UUID, int]) -> dict[str, Any]:
    return {
        "left_out": [list(each) for each in plan.left_out],
        "restarts": {
            names.get(gateway, str(gateway)): count for gateway, count in restarting.items() if count
        },
    }


def _numbered(plan: RingPlan) -> list[tuple[int, Changing]]:
    return [(number, each) for number, ring in enumerate(plan.rings, 1) for each in ring]


def _member(each: Changing, ring: int) -> Member:
    return Member(
        each.agent_id,
        each.name,
        each.gateway_id,
        each.is_main,
        ring,
        each.change,
        each.entry,
        RolloutState.WAITING,
        former=each.former,
    )


def _by_gateway(agents: Sequence[_OnGateway]) -> dict[UUID, list[_OnGateway]]:
    grouped: dict[UUID, list[_OnGateway]] = {}
    for each in agents:
        grouped.setdefault(each.gateway_id, []).append(each)
    return grouped


def _hold(
    connection: Connection,
    held: JobClaim,
    gateway: UUID,
    agents: Sequence[Changing] | Sequence[Member],
    sources: str,
) -> None:
    """Have these agents of a gateway keep what they have, until their ring begins."""
    by, keys = f"roll-out {held.job_id}", [each.agent_id for each in agents]
    hold_as_delivered(connection, gateway, keys, job_id=held.job_id, held_by=by, sources=sources)
    found = {each.agent_id: each.former for each in agents}
    hold_entries_as_found(connection, gateway, found, job_id=held.job_id, held_by=by)


# --- a ring


def _deliver(services: Services, held: JobClaim, standing: Standing) -> Ended | Snooze:
    """Begin a ring: its agents are held no longer, and one sync for each of its gateways brings them up to
    date."""
    messages: list[Message] = []
    with services.engine.begin() as connection:
        promoted = roll_outs.pause_if_promoted(connection, held.job_id)
        if standing.paused or promoted:
            reason = f"paused before ring {standing.ring} of {standing.rings}"
            if promoted:
                reason += ": templates were promoted meanwhile, which the rings before have not tried"
            return _park(connection, held, Step.DELIVER, PAUSED_POLL_S, reason, ReasonCode.PAUSED)
        members = roll_outs.members_of(connection, held.job_id, standing.ring)
        waiting = [each for each in members if each.state == RolloutState.WAITING]
        release_holds(connection, [each.agent_id for each in waiting], job_id=held.job_id)
        messages = _begin_syncs(connection, held, waiting, dry_run=False)
        noted = {each.agent_id: (RolloutState.DELIVERING, None) for each in waiting}
        roll_outs.note_states(connection, held.job_id, noted)
        reason = f"ring {standing.ring} of {standing.rings}: delivering to {_counted(waiting)}"
        snooze = _park(connection, held, Step.DELIVER, POLL_S if waiting else 0.0, reason)
    services.publish(messages)
    return snooze


def _begin_syncs(
    connection: Connection, held: JobClaim, members: Sequence[Member], *, dry_run: bool
) -> list[Message]:
    """Begin one sync of these agents for each of their gateways: a gateway restarts once at most."""
    each_of: dict[UUID, Mapping[str, Any]] = {}
    for gateway, agents in _by_gateway(members).items():
        each_of[gateway] = {
            "agent_ids": [each.agent_id for each in agents if not each.is_main],
            "include_main": any(each.is_main for each in agents),
            "dry_run": dry_run,
            "diff": False,
            "board_id": None,
            **(_NOTHING_ANEW if dry_run else {}),
        }
    return _begin_children(connection, held.job_id, held.options, each_of)


def _note_delivered(services: Services, held: JobClaim, standing: Standing) -> Ended | Snooze:
    """Record what became of the ring's agents, and have what they got read back."""
    with services.engine.begin() as connection:
        members = _note_delivery(services, connection, held, standing)
        delivered = [each for each in members if each.state == RolloutState.DELIVERED]
        if not delivered:
            roll_outs.begin_wait(connection, held.job_id, 0.0)
            return _park(connection, held, Step.HEALTH, 0.0, _at_work(held, standing))
        messages = _begin_syncs(connection, held, delivered, dry_run=True)
        reason = f"ring {standing.ring} of {standing.rings}: reading back what its agents have"
        snooze = _park(connection, held, Step.CHECK, POLL_S, reason)
    services.publish(messages)
    return snooze


def _note_delivery(
    services: Services, connection: Connection, held: JobClaim, standing: Standing
) -> list[Member]:
    """Record the states of the ring's agents after their delivery; those that did not get it are held again.
    Returns the ring's agents."""
    rows = {row.agent_id: row for row in roll_outs.child_rows(connection, standing.children)}
    members = roll_outs.members_of(connection, held.job_id, standing.ring)
    at_work = [each for each in members if each.state == RolloutState.DELIVERING]
    noted = {each.agent_id: _delivery(rows.get(each.agent_id)) for each in at_work}
    roll_outs.note_states(connection, held.job_id, noted)
    again = [
        each for each in at_work if noted[each.agent_id][0] in (RolloutState.FAILED, RolloutState.WAITING)
    ]
    sources = sources_sha256(services.settings.templates_dir)
    for gateway, agents in _by_gateway(again).items():
        _hold(connection, held, gateway, agents, sources)
    return roll_outs.members_of(connection, held.job_id, standing.ring)


def _delivery(row: Any) -> tuple[str, str | None]:
    """The state of an agent after its row in the ring's sync, None if it has none."""
    if row is None:
        return RolloutState.GONE, "It was deleted or moved meanwhile."
    if row.outcome in (AgentOutcome.DELETED, AgentOutcome.MOVED, AgentOutcome.PAUSED):
        return RolloutState.GONE, row.reason
    if row.status == "succeeded":
        return RolloutState.DELIVERED, None
    if row.status == "cancelled":
        return RolloutState.WAITING, None
    return RolloutState.FAILED, row.reason or row.status


def _note_checked(services: Services, held: JobClaim, standing: Standing) -> Ended | Snooze:
    """Record which of the ring's agents do not have what was delivered; wait for the others' runs."""
    with services.engine.begin() as connection:
        rows = {row.agent_id: row for row in roll_outs.child_rows(connection, standing.children)}
        members = roll_outs.members_of(connection, held.job_id, standing.ring)
        noted = {}
        for each in members:
            if each.state == RolloutState.DELIVERED:
                checked = _checked(rows.get(each.agent_id))
                if checked is not None:
                    noted[each.agent_id] = checked
        roll_outs.note_states(connection, held.job_id, noted)
        roll_outs.begin_wait(connection, held.job_id, seconds_of(str(held.options["wait"])))
        reason = f"ring {standing.ring} of {standing.rings}: waiting for runs of its agents"
        return _park(connection, held, Step.HEALTH, 0.0, reason)


def _checked(row: Any) -> tuple[str, str | None] | None:
    """The state of an agent whose row in the dry run after the delivery is not as it should be; None if it
    is."""
    state, reason = _delivery(row)
    if state == RolloutState.GONE:
        return state, reason
    if state != RolloutState.DELIVERED:
        return RolloutState.FAILED, f"What was delivered could not be read back: {reason or 'cancelled'}"
    seen = Row(
        row.agent_id,
        row.agent_name,
        row.board_id,
        row.is_main,
        row.status,
        None,
        None,
        (),
        row.files,
        row.roster,
    )
    if seen.unchanged:
        return None
    names = ", ".join(
        name for name, file in sorted(row.files.items()) if file.get("action") in ("create", "update")
    )
    return RolloutState.FAILED, f"What was delivered is not there: {names or 'its roster entry'}."


# --- health


def _look_at_health(services: Services, held: JobClaim, standing: Standing) -> Ended | Snooze:
    """Look at the ring's agents whose health is not known yet; go on once all are judged, or stop."""
    with services.engine.connect() as connection:
        members = roll_outs.members_of(connection, held.job_id, standing.ring)
    unjudged = [each for each in members if each.state == RolloutState.DELIVERED]
    more = look_at_ring(services, held, unjudged) if unjudged and not standing.waited_out else False
    with services.engine.begin() as connection:
        if standing.waited_out:
            roll_outs.note_states(
                connection, held.job_id, {each.agent_id: _unheard(held) for each in unjudged}
            )
        everybody = roll_outs.members_of(connection, held.job_id)
        spent = _failed(held, everybody)
        if len(spent) >= int(held.options.get("max_failed") or 1):
            return _stop(connection, held, standing, everybody, spent)
        ring = [each for each in everybody if each.ring == standing.ring]
        left = [each for each in ring if each.state == RolloutState.DELIVERED]
        if left:
            reason = _waits(standing, ring, left)
            return _park(connection, held, Step.HEALTH, 0.0 if more else _look_s(left), reason)
        if _replaced_gone(connection, held, standing, everybody):
            roll_outs.enter_ring(connection, held.job_id, standing.ring)
            reason = f"ring {standing.ring} of {standing.rings}: another agent stands in for one that is gone"
            return _park(connection, held, Step.DELIVER, 0.0, reason)
        if standing.ring < standing.rings:
            roll_outs.enter_ring(connection, held.job_id, standing.ring + 1)
            reason = f"ring {standing.ring + 1} of {standing.rings} is next"
            return _park(connection, held, Step.DELIVER, 0.0, reason)
        return _complete(connection, held, standing, everybody)


def _look_s(left: Sequence[Member]) -> float:
    had_s = min(each.reached_s or 0.0 for each in left)
    return min(LONGEST_LOOK_S, max(SHORTEST_LOOK_S, had_s / 4))


def _unheard(held: JobClaim) -> tuple[str, str | None]:
    return RolloutState.UNKNOWN, f"No run of it that ended was seen within {held.options['wait']}."


def _waits(standing: Standing, ring: Sequence[Member], left: Sequence[Member]) -> str:
    until = f" until {standing.wait_until.astimezone(UTC):%H:%M:%S} UTC" if standing.wait_until else ""
    well = sum(each.state == RolloutState.HEALTHY for each in ring)
    return (
        f"ring {standing.ring} of {standing.rings}: {well} of {len(ring)} well, waiting for runs of"
        f" {len(left)}{until}"
    )


def _failed(held: JobClaim, members: Sequence[Member]) -> list[Member]:
    """The agents that count as failed."""
    states = [RolloutState.FAILED] + ([] if held.option("accept_unknown") else [RolloutState.UNKNOWN])
    return [each for each in members if each.state in states]


def _replaced_gone(
    connection: Connection, held: JobClaim, standing: Standing, members: Sequence[Member]
) -> bool:
    """Have another agent stand in for each of the first ring that is gone, if one gets the same change and
    nobody in the ring has shown it to be well; returns whether one does."""
    if standing.ring != 1:
        return False
    first = [each for each in members if each.ring == 1]
    seen = {each.change for each in first if each.state != RolloutState.GONE}
    waiting = [each for each in members if each.ring > 1 and each.state == RolloutState.WAITING]
    replaced = False
    for gone in first:
        other = stand_in(gone.change, waiting) if gone.state == RolloutState.GONE else None
        if other is not None and gone.change not in seen:
            seen.add(gone.change)
            roll_outs.put_into_ring(connection, held.job_id, other.agent_id, 1)
            replaced = True
    return replaced


# --- the end


def _complete(connection: Connection, held: JobClaim, standing: Standing, members: Sequence[Member]) -> Ended:
    """End a roll-out that has reached all its agents: nothing is held for it any more."""
    release_holds(connection, [each.agent_id for each in members], job_id=held.job_id)
    failed = _failed(held, members)
    status, error, code = "succeeded", None, None
    if failed:
        status, code = "partial", ReasonCode.AGENTS_FAILED
        error = f"All rings were reached, and {_counted(failed)} failed: {_first(failed)}"
    _write_end(connection, held, standing, members, status, error, code)
    return Ended(status, error)


def _stop(
    connection: Connection,
    held: JobClaim,
    standing: Standing,
    members: Sequence[Member],
    failed: Sequence[Member],
) -> Ended:
    """End a roll-out whose error budget is spent; those that it has not reached keep what they have."""
    error = (
        f"Stopped in ring {standing.ring} of {standing.rings}, for {_counted(failed)} failed, as many as"
        f" max_failed allows: {_first(failed)}{_left(members)}"
    )
    back = _roll_back(connection, held) if held.option("rollback_on_failure") else None
    _write_end(connection, held, standing, members, "failed", error, ReasonCode.BUDGET_SPENT, back)
    return Ended("failed", error)


def _roll_back(connection: Connection, held: JobClaim) -> UUID:
    """Enqueue the job that takes back what the roll-out has changed."""
    request = RollbackJob(gateway_id=held.gateway_id, undo_job_id=held.job_id, requested_by="roll-out")
    return enqueue(connection, request, parent=held.job_id).job_id


def _abort(services: Services, held: JobClaim, standing: Standing, open_children: int) -> Ended | Snooze:
    """End the roll-out on request, once the agents that are being worked at are done."""
    with services.engine.begin() as connection:
        if open_children:
            for job in roll_outs.child_jobs(connection, standing.children):
                if job.status in ("queued", "running"):
                    cancel(connection, job.id)
            return _park(connection, held, held.phase, POLL_S, "ending the syncs of its ring")
        if held.phase == Step.DELIVER and standing.children:
            _note_delivery(services, connection, held, standing)
        members = roll_outs.members_of(connection, held.job_id)
        where = f" in ring {standing.ring} of {standing.rings}" if standing.rings else ""
        error = f"{CANCELLED[:-1]}{where}.{_left(members)}"
        _write_end(connection, held, standing, members, "cancelled", error, ReasonCode.CANCELLED)
    return Ended("cancelled", error)


def _counted(members: Sequence[Member]) -> str:
    return f"{len(members)} agent{'s' * (len(members) != 1)}"


def _first(failed: Sequence[Member]) -> str:
    return f"{failed[0].agent_name}: {as_sentence(failed[0].reason or failed[0].state)}"


def _left(members: Sequence[Member]) -> str:
    left = sum(each.state == RolloutState.WAITING for each in members)
    if left == 1:
        return " 1 agent that was not reached keeps what it had."
    return f" {left} agents that were not reached keep what they had." if left else ""


def _write_end(
    connection: Connection,
    held: JobClaim,
    standing: Standing,
    members: Sequence[Member],
    status: str,
    error: str | None,
    code: ReasonCode | None,
    rollback_job_id: UUID | None = None,
) -> None:
    planned = dict(roll_outs.plan_of(connection, held.job_id))
    warnings = planned.pop("warnings", [])
    untold = Counter(each.reason for each in members if each.state == RolloutState.HEALTHY and each.reason)
    for reason, count in sorted(untold.items()):
        warnings.append(f"Well without a run, {count} of {len(members)}: {reason}")
    result = _result(held, standing, members, {}, planned)
    if rollback_job_id is not None:
        result["rollback_job_id"] = str(rollback_job_id)
    roll_outs.end_roll_out(connection, held, status, result=result, warnings=warnings, error=error, code=code)


def _result(
    held: JobClaim,
    standing: Standing,
    members: Sequence[Member],
    names: Mapping[UUID, str],
    planned: Mapping[str, Any],
) -> dict[str, Any]:
    def count(*states: RolloutState) -> int:
        return sum(each.state in states for each in members)

    rings = sorted({each.ring for each in members})
    return {
        "dry_run": held.option("dry_run"),
        "gateways": [str(gateway) for gateway in standing.gateways],
        "rings": [
            _ring_result(ring, [each for each in members if each.ring == ring], names) for ring in rings
        ],
        "agents_total": len(members),
        "agents_reached": len(members) - count(RolloutState.WAITING, RolloutState.GONE),
        "agents_healthy": count(RolloutState.HEALTHY),
        "agents_unknown": count(RolloutState.UNKNOWN),
        "agents_failed": count(RolloutState.FAILED),
        "agents_gone": count(RolloutState.GONE),
        "agents_left": count(RolloutState.WAITING),
        "left_out": [],
        "restarts": {},
        **planned,
        "errors": [
            {"agent_id": str(each.agent_id), "agent_name": each.agent_name, "message": each.reason}
            for each in members
            if each.state in (RolloutState.FAILED, RolloutState.UNKNOWN)
        ],
    }


def _ring_result(ring: int, members: Sequence[Member], names: Mapping[UUID, str]) -> dict[str, Any]:
    states = [each.state for each in members]
    found: dict[str, Any] = {
        "ring": ring,
        "agents": len(members),
        "changes": len({each.change for each in members}),
        "names": [each.agent_name for each in members],
        **{state.value: states.count(state) for state in RolloutState},
    }
    if names:
        found["gateways"] = sorted({names.get(each.gateway_id, str(each.gateway_id)) for each in members})
    return found


def _end(
    services: Services,
    held: JobClaim,
    status: str,
    result: Mapping[str, Any],
    *,
    warnings: Sequence[str] = (),
    error: str | None = None,
    code: ReasonCode | None = None,
) -> Ended:
    with services.engine.begin() as connection:
        roll_outs.end_roll_out(
            connection, held, status, result=result, warnings=warnings, error=error, code=code
        )
    return Ended(status, error)


def _fail(services: Services, held: JobClaim, error: Exception) -> Ended:
    with services.engine.begin() as connection:
        standing = roll_outs.standing_of(connection, held.job_id)
        members = roll_outs.members_of(connection, held.job_id)
        reason = f"{as_sentence(reason_of(error))}{_left(members)}"
        _write_end(connection, held, standing, members, "failed", reason, code_of(error))
    return Ended("failed", reason)
