"""Plans a roll-out from dry runs of its gateways: which agents change, and in which rings (rules.md 56)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from worker.errors import PermanentError, TransientError, as_sentence
from worker.gateway.dialect import Dialect
from worker.jobs.executor import Ended
from worker.jobs.requests import canary_of
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import RolloutState, Step
from worker.jobs.store import roll_outs
from worker.jobs.store.job_leases import JobClaim
from worker.jobs.store.roll_outs import Member, Standing
from worker.records.gateway_repository import require_gateway
from worker.records.holds import (
    release_ended_roll_outs,
)
from worker.runtime.services import Services
from worker.sync.roll_outs.ending import closed, end_with, result_of
from worker.sync.roll_outs.ring_health import untold_on
from worker.sync.roll_outs.rings import Changing, RingPlan, change_of, plan_rings, require_looked_at, restarts
from worker.sync.roll_outs.waiting import by_gateway, hold, park_at
from worker.workspace.template_sources import sources_sha256

_NAMES = 5


@dataclass(frozen=True)
class _Look:
    """What the dry runs found. ``agents``: the names of all that were looked at; ``names``: the gateways'."""

    changing: Sequence[Changing]
    agents: Mapping[UUID, str]
    names: Mapping[UUID, str]
    warnings: Sequence[str]


def make_plan(services: Services, held: JobClaim, standing: Standing) -> Ended | Snooze:
    """Put the agents that change into rings, and hold all of them as they are. Raises PermanentError, and has
    touched nothing then, if a gateway or a canary cannot be looked at."""
    with services.engine.connect() as connection:
        look = _look(connection, standing)
        canary = canary_of(str(held.options["canary"]))
        require_looked_at(canary.agents, look.agents, roll_outs.names_of(connection, canary.agents))
    if not look.changing:
        result = result_of(held, standing, [], look.names, {})
        return end_with(services, held, "succeeded", result, warnings=look.warnings)
    plan = plan_rings(look.changing, canary, look.agents)
    dialects = _dialects(services, {each.gateway_id for each in look.changing})
    restarting = [key for key, dialect in dialects.items() if dialect is None or dialect.restarts]
    planned = _planned(plan, look.names, restarts(plan.rings, restarting))
    warnings = [*look.warnings, *_untold(held, dialects, look.names)]
    if held.option("dry_run"):
        members = [_member(each, ring) for ring, each in _numbered(plan)]
        result = result_of(held, standing, members, look.names, planned)
        return end_with(services, held, "succeeded", result, warnings=warnings)
    sources = sources_sha256(services.settings.templates_dir)
    with services.engine.begin() as connection:
        release_ended_roll_outs(connection, standing.gateways)
        for gateway, agents in by_gateway(look.changing).items():
            hold(connection, held, gateway, agents, sources)
        members = [_member(each, ring) for ring, each in _numbered(plan)]
        roll_outs.add_members(connection, held.job_id, members, len(plan.rings))
        roll_outs.store_plan(connection, held.job_id, {**planned, "warnings": warnings})
        return park_at(connection, held, Step.DELIVER, 0.0, f"ring 1 of {len(plan.rings)} is next")


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
                f" {closed(job.error or job.status)} Once `provisioner doctor` finds it well, ask again,"
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
    agents = {row.agent_id: row.agent_name for row in rows}
    return _Look(changing, agents, names, [*warnings, *_conflicts(rows)])


def _conflicts(rows: Sequence[Any]) -> Iterator[str]:
    """Who does not get all of the change, because it touches what the agent itself has written."""
    found = []
    for row in rows:
        names = [name for name, file in sorted((row.files or {}).items()) if file.get("action") == "conflict"]
        if names:
            found.append(
                f"{row.agent_name} keeps what it wrote into {', '.join(names)}, which the change touches:"
                " --overwrite-file or --keep-file settles that."
            )
    yield from found[:_NAMES]
    if len(found) > _NAMES:
        yield f"{len(found) - _NAMES} more keep what they wrote; a sync's dry run names them."


def _dialects(services: Services, gateways: Collection[UUID]) -> dict[UUID, Dialect | None]:
    """What is known of the releases of these gateways: None for one that cannot be asked now."""
    found: dict[UUID, Dialect | None] = {}
    for gateway_id in gateways:
        with services.engine.connect() as connection:
            gateway = require_gateway(connection, gateway_id)
        try:
            hello = services.clients.client(gateway.address).hello()
        except TransientError:
            found[gateway_id] = None
        else:
            found[gateway_id] = Dialect.from_hello(hello.server_version, hello.methods)
    return found


def _untold(
    held: JobClaim, dialects: Mapping[UUID, Dialect | None], names: Mapping[UUID, str]
) -> Iterator[str]:
    """For each gateway on which no run shows whether an agent is well: what that means for the roll-out."""
    for gateway, dialect in dialects.items():
        reset = held.option("reset_sessions")
        untold = dialect and untold_on(dialect, reset_sessions=reset)
        if not untold:
            continue
        does = (
            "rings do not wait there, as --accept-unknown says"
            if held.option("accept_unknown")
            else f"each ring there waits {held.options['wait']} for somebody to look at its agents, and goes"
            " on if nobody has ended it with `provisioner rollout abort`"
        )
        probe = ", and --probe sends nothing" if held.option("probe") else ""
        yield f"{names.get(gateway, gateway)}: {untold.rstrip('.')}; {does}{probe}."


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
