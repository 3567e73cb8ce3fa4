"""What the steps of a roll-out share: to park its row, to hold agents, and to begin syncs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from worker.jobs.messages import Message, kind_message
from worker.jobs.requests import ROLL_OUT, SyncGateway
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode, Step
from worker.jobs.store import roll_outs
from worker.jobs.store.job_leases import JobClaim
from worker.jobs.store.jobs import enqueue, requester_of
from worker.jobs.store.roll_outs import Member, Standing
from worker.records.holds import (
    hold_as_delivered,
    hold_entries_as_found,
)
from worker.sync.begin import begin as begin_sync
from worker.sync.roll_outs.rings import Changing

_NOTHING_ANEW = {"rotate_tokens": False, "force_bootstrap": False, "reset_sessions": False}
"""Options that would have a dry run want to do again what was just done."""
_OnGateway = TypeVar("_OnGateway", Changing, Member)


def begin_children(
    connection: Connection,
    job_id: UUID,
    options: Mapping[str, Any],
    changes: Mapping[UUID, Mapping[str, Any]],
) -> list[Message]:
    """Enqueue and start a sync of each of these gateways, with the options of the roll-out's request and
    these changes, and wait for them from now on; returns the messages to send after the commit."""
    shared = {name: value for name, value in options.items() if name in SyncGateway.model_fields}
    shared |= {"request_id": None, "webhook": None, "requested_by": ROLL_OUT}
    messages, children = [], []
    for gateway, own in changes.items():
        request = SyncGateway.model_validate({**shared, "gateway_id": gateway, **own})
        child = enqueue(connection, request, parent=job_id).job_id
        # Started here: the message of a queued job counts as lost much later than that of one that runs.
        if begin_sync(connection, child, request) is not None:
            messages.append(kind_message(SyncGateway.kind, child, gateway))
        children.append(child)
    roll_outs.set_children(connection, job_id, children)
    return messages


def park_at(
    connection: Connection,
    held: JobClaim,
    phase: str,
    delay_s: float,
    reason: str,
    code: ReasonCode = ReasonCode.WAITING_FOR_RING,
) -> Snooze:
    """Park the job's row at ``phase`` for ``delay_s`` seconds. Raises LeaseLostError."""
    roll_outs.park_roll_out(connection, held, phase, delay_s, reason, code)
    return Snooze(reason, code=code)


def at_work(held: JobClaim, standing: Standing) -> str:
    """What the roll-out is waiting for while its syncs run, as a reason for people."""
    if held.phase == Step.LOOK:
        return "looking at what changes for whom"
    doing = "delivering to its agents" if held.phase == Step.DELIVER else "reading back what its agents have"
    return f"ring {standing.ring} of {standing.rings}: {doing}"


def by_gateway(agents: Sequence[_OnGateway]) -> dict[UUID, list[_OnGateway]]:
    """The agents by their gateways."""
    grouped: dict[UUID, list[_OnGateway]] = {}
    for each in agents:
        grouped.setdefault(each.gateway_id, []).append(each)
    return grouped


def hold(
    connection: Connection,
    held: JobClaim,
    gateway: UUID,
    agents: Sequence[Changing] | Sequence[Member],
    sources: str,
) -> None:
    """Have these agents of a gateway keep what they have, until their ring begins."""
    by, keys = requester_of(connection, held.job_id), [each.agent_id for each in agents]
    hold_as_delivered(connection, gateway, keys, job_id=held.job_id, held_by=by, sources=sources)
    found = {each.agent_id: each.former for each in agents}
    hold_entries_as_found(connection, gateway, found, job_id=held.job_id, held_by=by)


def begin_syncs(
    connection: Connection, held: JobClaim, members: Sequence[Member], *, dry_run: bool
) -> list[Message]:
    """Begin one sync of these agents for each of their gateways: a gateway restarts once at most."""
    each_of: dict[UUID, Mapping[str, Any]] = {}
    for gateway, agents in by_gateway(members).items():
        each_of[gateway] = {
            "agent_ids": [each.agent_id for each in agents if not each.is_main],
            "include_main": any(each.is_main for each in agents),
            "dry_run": dry_run,
            "diff": False,
            "board_id": None,
            "in_window": held.option("probe") and not dry_run,
            **(_NOTHING_ANEW if dry_run else {}),
        }
    return begin_children(connection, held.job_id, held.options, each_of)
