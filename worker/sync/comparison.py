"""Compares all agents of a sync with what is on record of them, and ends the rows of those that need nothing
(decisions.md D5): they cost a call or two to their gateway, but neither a message nor a claim."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

from worker.agents.agent_context import AgentContext
from worker.agents.agent_job import SYNC
from worker.agents.unchanged import NEEDS_MORE_THAN_A_LOOK, Candidate, candidate, unchanged
from worker.errors import TransientError
from worker.gateway.errors import OUTAGES, GatewayError
from worker.gateway.workspace_looks import NeedsMoreError, SeenFiles, look_at
from worker.jobs.requests import SyncGateway
from worker.jobs.retry_policy import Snooze
from worker.jobs.store.job_agents import Claim
from worker.jobs.store.job_leases import JobClaim, hand_on
from worker.jobs.store.sync_rows import Compared, ToCompare, agents_to_compare, end_unchanged
from worker.records.agent_repository import AgentRecord, load_agents
from worker.runtime.services import Services
from worker.shutdown_flag import shutting_down
from worker.sync.agent_plans import Planned, Reached
from worker.workspace.actions import WRITES

AT_A_TIME_S = 10.0
"""Seconds for which a worker compares before it gives the sync's row back, for others to have its thread."""
_FIRST, _FEWEST, _MOST = 100, 10, 500
_CHUNK_S = 3.0
"""Seconds that looking at one chunk of agents should take; the next chunk is made larger or smaller."""


def compare_agents(
    services: Services, held: JobClaim, reached: Reached, planned: Planned | None = None
) -> Snooze | bool:
    """Look at the agents that were not compared yet, chunk by chunk; each chunk is one transaction.

    ``planned``: the plans of the sync, if they are not stored yet. Returns whether all of the sync's rows
    have ended, once all agents were compared; or the snooze, if the row was handed on to whichever worker
    takes it next, as it is when the sync is being cancelled. Raises TransientError, LeaseLostError.
    """
    if any(held.option(name) for name in NEEDS_MORE_THAN_A_LOOK):
        if planned is not None:
            with services.engine.begin() as connection:
                planned.store(connection, held)
        return False
    until, most = time.monotonic() + AT_A_TIME_S, _FIRST
    while True:
        agents, records = _next(services, held, planned, most)
        began = time.monotonic()
        position, compared = _compare(services, held, reached, agents, records, planned)
        planned = None
        if not compared.cancelled and len(agents) < most and position >= _last(agents):
            return compared.over
        took_s = max(time.monotonic() - began, 0.001)
        most = max(_FEWEST, min(_MOST, int(len(agents) * _CHUNK_S / took_s)))
        if compared.cancelled or time.monotonic() > until or shutting_down.is_set():
            with services.engine.begin() as connection:
                messages = hand_on(connection, held)
            services.publish(messages)
            return Snooze("comparing its agents with what is on record of them")


def _next(
    services: Services, held: JobClaim, planned: Planned | None, most: int
) -> tuple[list[ToCompare], dict[UUID, AgentRecord]]:
    """The agents to compare next, at most so many, and what is on record of them."""
    with services.engine.connect() as connection:
        if planned is None:
            agents = agents_to_compare(connection, held.job_id, most)
        else:
            agents = planned.to_compare[:most]
        keys = [each.agent_id for each in agents if each.is_settled]
        return agents, load_agents(connection, keys, _user_id(held)) if keys else {}


def _last(agents: Sequence[ToCompare]) -> int:
    return agents[-1].position if agents else 0


def _user_id(held: JobClaim) -> UUID | None:
    given = held.options.get("user_id")
    return UUID(given) if given else None


def _compare(
    services: Services,
    held: JobClaim,
    reached: Reached,
    agents: Sequence[ToCompare],
    records: dict[UUID, AgentRecord],
    planned: Planned | None,
) -> tuple[int, Compared]:
    """Compare some agents; returns the position up to which all were compared, and what came of it."""
    found: list[tuple[ToCompare, Candidate]] = []
    for each in agents:
        record = records.get(each.agent_id)
        if record is not None and (one := _candidate(services, held, reached, each, record)) is not None:
            found.append((each, one))
    client = services.clients.client(reached.gateway.address)
    seen = look_at(client, reached.dialect, [one.to_look_at for _, one in found])
    rows = [
        {**vars(row), "agent_id": str(row.agent_id), "openclaw_id": each.openclaw_id, "roster": each.roster}
        for (each, one), files in zip(found, seen, strict=True)
        if isinstance(files, SeenFiles) and (row := unchanged(one, files)) is not None
    ]
    position = _compared_to(agents, [each for each, _ in found], seen, again=held.failing_s > 0)
    read_at = agents[0].read_at if agents else 0.0
    with services.engine.begin() as connection:
        compared = end_unchanged(connection, held, rows, position, read_at)
        if planned is not None:
            planned.store(connection, held, but=compared.ended)
        return position, compared


def _compared_to(
    agents: Sequence[ToCompare],
    asked: Sequence[ToCompare],
    seen: Sequence[SeenFiles | NeedsMoreError | GatewayError],
    *,
    again: bool,
) -> int:
    """The position up to which all agents were compared: as far as the gateway has answered.

    What it did not answer is looked at again, but for an agent at which the look before has stopped: that is
    left to its own row. Raises the gateway's error if nothing was answered because of an outage; where that
    is so ``again``, it may be because of one of these agents, and their own rows find out which.
    """
    late = [
        (each, answer) for each, answer in zip(asked, seen, strict=True) if isinstance(answer, TransientError)
    ]
    if late and len(late) == len(asked) and isinstance(late[0][1], OUTAGES) and not again:
        raise late[0][1]
    first = late[0][0] if late else None
    if first is None or first is agents[0]:
        return _last(agents)
    return max(first.position - 1, agents[0].position)  # two may have one position, after a wait for a window


def _candidate(
    services: Services, held: JobClaim, reached: Reached, agent: ToCompare, record: AgentRecord
) -> Candidate | None:
    if not agent.is_settled or record.gateway_id != held.gateway_id:
        return None
    if held.option("dry_run") and (agent.roster or {}).get("action") in WRITES:
        return None  # its row reports what would become of the entry
    claim, warnings = _as_claimed(held, agent), list(agent.warnings)
    context = AgentContext(
        services, claim, record, SYNC, reached.dialect, warnings=warnings, one_session=reached.one_session
    )
    return candidate(context)


def _as_claimed(held: JobClaim, agent: ToCompare) -> Claim:
    """What the agent's row would be claimed with. Nothing is written with it: only the sync's own row is
    leased."""
    return Claim(
        job_id=held.job_id,
        agent_id=agent.agent_id,
        kind=SyncGateway.kind,
        single=False,
        options=held.options,
        gateway_id=held.gateway_id,
        generation=0,
        tries=0,
        crashes=0,
        phase="files",
        first_provision=False,
        status_before=None,
        wake_key=None,
        wake_sent_at=None,
        woken_at=None,
        files={},
        warnings=(),
        cancel_requested=False,
        age_s=0.0,
        roster=agent.roster,
        requested_by=held.requested_by,
    )
