"""Writes and reads roll-outs: their own row, where they stand, and the agents in their rings (rules.md 56).

A roll-out is a job whose own row is leased for moments: it begins syncs of some agents, its children, and is
parked until they have ended, or until more can be known of the agents' health.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.jobs.requests import BadRequestError, RollOut
from worker.jobs.states import OPEN_STATUSES, ReasonCode, RolloutState, Step
from worker.jobs.store.codes import outcome
from worker.jobs.store.job_leases import HELD, JobClaim, key_of, require_held
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.masking.columns import MaskedJson, MaskedText

REACHED = (RolloutState.DELIVERED, RolloutState.HEALTHY, RolloutState.UNKNOWN)
"""The states of an agent that certainly has the change; one that has failed may have it."""


@dataclass(frozen=True)
class Standing:
    """Where a roll-out stands (`models.roll_outs`). ``waited_out``: the time for runs of the ring is over;
    ``wait_left_s``: how many seconds of it are left, None while it has not begun."""

    gateways: Sequence[UUID]
    ring: int
    rings: int
    children: Sequence[UUID]
    paused: bool
    waited_out: bool
    wait_until: datetime | None = None
    wait_left_s: float | None = None


@dataclass(frozen=True)
class Member:
    """An agent of a roll-out. ``reached_s``, ``probed_s``: seconds since it got the change, and since it was
    sent a message; None before that. ``verified``: its files and token were read back; ``former``:
    by field, what was found in its roster entry where that changes."""

    agent_id: UUID
    agent_name: str
    gateway_id: UUID
    is_main: bool
    ring: int
    change: str
    entry: bool
    state: str
    reason: str | None = None
    reached_s: float | None = None
    probed_s: float | None = None
    verified: bool = False
    former: Mapping[str, Any] = field(default_factory=dict)

    @property
    def untold(self) -> bool:
        """Whether nothing will ever tell of its runs: it has the change, and its reason says why."""
        return self.state == RolloutState.DELIVERED and self.reason is not None


def open_roll_out_on(connection: Connection, gateways: Collection[UUID]) -> UUID | None:
    """The roll-out that is open on one of these gateways, if there is one."""
    return connection.execute(_OPEN_ON, {"gateways": list(gateways)}).scalar_one_or_none()


def start_roll_out(
    connection: Connection,
    job_id: UUID,
    request: RollOut,
    organization_id: UUID | None,
    gateways: Sequence[UUID],
) -> None:
    """Start a queued roll-out. Raises BadRequestError if another one is open on one of its gateways."""
    connection.execute(_ONE_AT_A_TIME)
    other = open_roll_out_on(connection, gateways)
    if other is not None:
        raise BadRequestError(
            f"Roll-out {other} is open on one of these gateways: wait for it, or end it with `provisioner"
            f" rollout abort {other}`."
        )
    connection.execute(
        _START,
        {
            "job_id": job_id,
            "organization_id": organization_id,
            "options": request.options(),
            "republish_s": LOST_AFTER_S,
        },
    )
    connection.execute(_ADD, {"job_id": job_id, "gateways": list(gateways)})


def set_children(connection: Connection, job_id: UUID, children: Sequence[UUID]) -> None:
    """Record which syncs the roll-out waits for now."""
    connection.execute(_SET_CHILDREN, {"job_id": job_id, "children": list(children)})


def standing_of(connection: Connection, job_id: UUID) -> Standing:
    """Where the roll-out stands."""
    row = connection.execute(_STANDING, {"job_id": job_id}).one()
    return Standing(**row._mapping)


def members_of(connection: Connection, job_id: UUID, ring: int | None = None) -> list[Member]:
    """The roll-out's agents, of one ring or of all, by ring and name."""
    rows = connection.execute(_MEMBERS, {"job_id": job_id, "ring": ring})
    return [Member(**row._mapping) for row in rows]


def names_of(connection: Connection, agents: Collection[UUID]) -> dict[UUID, str]:
    """The names of these agents, as far as they have rows."""
    if not agents:
        return {}
    return {row.id: row.name for row in connection.execute(_NAMES, {"agents": list(agents)})}


@dataclass(frozen=True)
class OpenJobs:
    """How many of some jobs have not ended. ``wait``: why they wait, if all of them wait for a window."""

    count: int
    wait: str | None


def still_open(connection: Connection, children: Collection[UUID]) -> OpenJobs:
    """Those of these jobs that have not ended."""
    row = connection.execute(_STILL_OPEN, {"children": list(children)}).one()
    return OpenJobs(row.open, row.wait if row.open and row.open == row.waiting else None)


def child_jobs(connection: Connection, children: Collection[UUID]) -> Sequence[Row[Any]]:
    """The id, gateway_id, gateway's name, status, error and reason_code of these jobs."""
    return connection.execute(_CHILDREN, {"children": list(children)}).all()


def child_rows(connection: Connection, children: Collection[UUID]) -> Sequence[Row[Any]]:
    """What these jobs did to each of their agents: the columns of its row, with its gateway_id and whether it
    is a main agent."""
    return connection.execute(_CHILD_ROWS, {"children": list(children)}).all()


def add_members(connection: Connection, job_id: UUID, members: Sequence[Member], rings: int) -> None:
    """Record who is in which ring; the first one is next."""
    rows = [
        {
            "job_id": job_id,
            "agent_id": each.agent_id,
            "agent_name": each.agent_name,
            "gateway_id": each.gateway_id,
            "is_main": each.is_main,
            "ring": each.ring,
            "change": each.change,
            "entry": each.entry,
            "former": dict(each.former),
        }
        for each in members
    ]
    connection.execute(_ADD_MEMBERS, rows)
    connection.execute(_SET_RINGS, {"job_id": job_id, "rings": rings})


def store_plan(connection: Connection, job_id: UUID, plan: Mapping[str, Any]) -> None:
    """Keep what the result will say of the plan."""
    connection.execute(_STORE_PLAN, {"job_id": job_id, "plan": dict(plan)})


def plan_of(connection: Connection, job_id: UUID) -> Mapping[str, Any]:
    """What `store_plan` has kept; empty before the plan is made."""
    return dict(connection.execute(_PLAN, {"job_id": job_id}).scalar_one())


def enter_ring(connection: Connection, job_id: UUID, ring: int) -> None:
    """Go on to a ring."""
    connection.execute(_ENTER_RING, {"job_id": job_id, "ring": ring})


def put_into_ring(connection: Connection, job_id: UUID, agent_id: UUID, ring: int) -> None:
    """Move an agent that waits into another ring."""
    connection.execute(_PUT_INTO_RING, {"job_id": job_id, "agent_id": agent_id, "ring": ring})


def begin_wait(connection: Connection, job_id: UUID, wait_s: float) -> None:
    """From now on, wait ``wait_s`` seconds at most for the agents of the ring."""
    connection.execute(_BEGIN_WAIT, {"job_id": job_id, "wait_s": wait_s})


def note_states(connection: Connection, job_id: UUID, noted: Mapping[UUID, tuple[str, str | None]]) -> None:
    """Record the state of these agents, and why they are in it."""
    rows = [
        {"job_id": job_id, "agent_id": agent, "state": state, "reason": reason}
        for agent, (state, reason) in noted.items()
    ]
    if rows:
        connection.execute(_NOTE_STATES, rows)


def rolled_back(connection: Connection, job_id: UUID) -> set[UUID]:
    """The agents of the roll-out that somebody has rolled back since it began, and that are held so."""
    return set(connection.execute(_ROLLED_BACK, {"job_id": job_id}).scalars())


def note_verified(connection: Connection, job_id: UUID, agents: Collection[UUID]) -> None:
    """Record that the files and tokens of these agents were read back."""
    connection.execute(_NOTE_VERIFIED, {"job_id": job_id, "agents": list(agents)})


def note_probed(connection: Connection, job_id: UUID, agents: Collection[UUID]) -> list[UUID]:
    """Record that these agents are about to be sent a message; returns those that were not before."""
    return list(connection.execute(_NOTE_PROBED, {"job_id": job_id, "agents": list(agents)}).scalars())


def park_roll_out(
    connection: Connection, held: JobClaim, phase: str, delay_s: float, reason: str, code: ReasonCode
) -> None:
    """Give the lease back; the row is due in ``delay_s`` seconds, or at once if its end was asked for
    meanwhile. Raises LeaseLostError."""
    values = {**key_of(held), "phase": phase, "delay_s": delay_s, "reason": reason, "code": code}
    require_held(connection.execute(_PARK, values).rowcount, held)


def end_roll_out(
    connection: Connection,
    held: JobClaim,
    status: str,
    *,
    result: Mapping[str, Any],
    warnings: Sequence[str] = (),
    error: str | None = None,
    code: ReasonCode | None = None,
) -> None:
    """End the roll-out. Raises LeaseLostError."""
    ending = {"status": status, "result": dict(result), "error": error, "code": code}
    values = {**key_of(held), **ending, "warnings": list(warnings)}
    require_held(connection.execute(_END, values).rowcount, held)


def pause(connection: Connection, job_id: UUID) -> bool:
    """Have no further ring begin; false if the roll-out has ended or was paused before."""
    return bool(connection.execute(_PAUSE, {"job_id": job_id}).rowcount)


def pause_if_promoted(connection: Connection, job_id: UUID) -> bool:
    """Pause the roll-out if a template that may concern its agents was promoted or taken back since it began,
    or since it was last resumed; returns whether it was."""
    return bool(connection.execute(_PAUSE_IF_PROMOTED, {"job_id": job_id}).rowcount)


def resume(connection: Connection, job_id: UUID) -> bool:
    """Have further rings begin again; false if the roll-out has ended or is not paused."""
    if not connection.execute(_RESUME, {"job_id": job_id}).rowcount:
        return False
    connection.execute(_MAKE_DUE, {"job_id": job_id})
    return True


_OF_JOB = "SELECT count(*) FROM provisioner.roll_out_agents a WHERE a.job_id = j.id"
_COUNTS = f"""
    agents_total = ({_OF_JOB}),
    agents_done = ({_OF_JOB} AND a.state IN ('{RolloutState.HEALTHY}', '{RolloutState.UNKNOWN}',
        '{RolloutState.FAILED}', '{RolloutState.GONE}'))
"""
_OPEN = ", ".join(repr(status) for status in OPEN_STATUSES)
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('provisioner.roll_outs'))")
_OPEN_ON = text(f"""
    SELECT o.job_id FROM provisioner.roll_outs o JOIN provisioner.jobs j ON j.id = o.job_id
    WHERE o.gateways && CAST(:gateways AS uuid[]) AND j.status IN ({_OPEN})
    ORDER BY j.created_at LIMIT 1
""")
_START = text(f"""
    UPDATE provisioner.jobs
    SET status = 'running', phase = '{Step.LOOK}', started_at = now(), updated_at = now(),
        published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s),
        options = :options, organization_id = :organization_id
    WHERE id = :job_id AND status = 'queued'
""").bindparams(bindparam("options", type_=JSONB))
_ADD = text("INSERT INTO provisioner.roll_outs (job_id, gateways) VALUES (:job_id, :gateways)")
_SET_CHILDREN = text("UPDATE provisioner.roll_outs SET children = :children WHERE job_id = :job_id")
_STANDING = text("""
    SELECT gateways, ring, rings, children, paused_at IS NOT NULL AS paused, wait_until,
        coalesce(wait_until <= now(), false) AS waited_out,
        extract(epoch FROM wait_until - now())::float AS wait_left_s
    FROM provisioner.roll_outs WHERE job_id = :job_id
""")
_MEMBERS = text("""
    SELECT agent_id, coalesce(agent_name, agent_id::text) AS agent_name, gateway_id, is_main, ring, change,
        entry, state, reason, extract(epoch FROM now() - reached_at)::float AS reached_s,
        extract(epoch FROM now() - probed_at)::float AS probed_s, verified_at IS NOT NULL AS verified,
        former
    FROM provisioner.roll_out_agents
    WHERE job_id = :job_id AND (CAST(:ring AS int) IS NULL OR ring = :ring)
    ORDER BY ring, agent_name, agent_id
""")
_NAMES = text("SELECT id, name FROM agents WHERE id = ANY(:agents)")
_STILL_OPEN = text(f"""
    SELECT count(*) AS open, min(wait_reason) AS wait,
        count(*) FILTER (WHERE reason_code = '{ReasonCode.WAITING_FOR_WINDOW}') AS waiting
    FROM provisioner.jobs WHERE id = ANY(:children) AND status IN ({_OPEN})
""")
_CHILDREN = text("""
    SELECT j.id, j.gateway_id, coalesce(g.name, j.gateway_id::text) AS gateway_name, j.status, j.error,
        j.reason_code, j.warnings
    FROM provisioner.jobs j LEFT JOIN gateways g ON g.id = j.gateway_id WHERE j.id = ANY(:children)
    ORDER BY gateway_name, j.id
""")
_CHILD_ROWS = text(f"""
    SELECT r.agent_id, coalesce(r.agent_name, r.agent_id::text) AS agent_name, r.board_id,
        b.name AS board_name,
        r.openclaw_id, j.gateway_id, r.position IS NULL AS is_main, r.status, r.reason, r.reason_code,
        {outcome("r")} AS outcome, r.files, r.roster
    FROM provisioner.job_agents r JOIN provisioner.jobs j ON j.id = r.job_id
    LEFT JOIN boards b ON b.id = r.board_id
    WHERE r.job_id = ANY(:children) ORDER BY j.gateway_id, r.position NULLS LAST
""")
_ADD_MEMBERS = text("""
    INSERT INTO provisioner.roll_out_agents
        (job_id, agent_id, agent_name, gateway_id, is_main, ring, change, entry, former)
    VALUES (:job_id, :agent_id, :agent_name, :gateway_id, :is_main, :ring, :change, :entry, :former)
""").bindparams(bindparam("former", type_=JSONB))
_SET_RINGS = text("""
    UPDATE provisioner.roll_outs SET rings = :rings, ring = 1, children = '{}' WHERE job_id = :job_id
""")
_STORE_PLAN = text("UPDATE provisioner.roll_outs SET plan = :plan WHERE job_id = :job_id").bindparams(
    bindparam("plan", type_=MaskedJson)
)
_PLAN = text("SELECT plan FROM provisioner.roll_outs WHERE job_id = :job_id")
_ENTER_RING = text("""
    UPDATE provisioner.roll_outs SET ring = :ring, children = '{}', wait_until = NULL WHERE job_id = :job_id
""")
_PUT_INTO_RING = text(f"""
    UPDATE provisioner.roll_out_agents SET ring = :ring
    WHERE job_id = :job_id AND agent_id = :agent_id AND state = '{RolloutState.WAITING}'
""")
_BEGIN_WAIT = text("""
    UPDATE provisioner.roll_outs SET children = '{}', wait_until = now() + make_interval(secs => :wait_s)
    WHERE job_id = :job_id
""")
_NOTE_STATES = text(f"""
    UPDATE provisioner.roll_out_agents SET state = :state, reason = :reason,
        reached_at = CASE WHEN CAST(:state AS text) = '{RolloutState.DELIVERED}'
                          THEN coalesce(reached_at, now()) ELSE reached_at END
    WHERE job_id = :job_id AND agent_id = :agent_id
""").bindparams(bindparam("reason", type_=MaskedText))
_ROLLED_BACK = text("""
    SELECT a.agent_id
    FROM provisioner.roll_out_agents a JOIN provisioner.jobs j ON j.id = a.job_id
    WHERE a.job_id = :job_id AND EXISTS (
        SELECT FROM (
            SELECT agent_id, gateway_id, job_id, since FROM provisioner.held_files
            UNION ALL SELECT agent_id, gateway_id, job_id, since FROM provisioner.held_fields
        ) h JOIN provisioner.jobs b ON b.id = h.job_id AND b.kind = 'rollback'
        WHERE (h.agent_id, h.gateway_id) = (a.agent_id, a.gateway_id) AND h.since > j.started_at)
""")
_NOTE_VERIFIED = text("""
    UPDATE provisioner.roll_out_agents SET verified_at = now()
    WHERE job_id = :job_id AND agent_id = ANY(:agents)
""")
_NOTE_PROBED = text("""
    UPDATE provisioner.roll_out_agents SET probed_at = now()
    WHERE job_id = :job_id AND agent_id = ANY(:agents) AND probed_at IS NULL RETURNING agent_id
""")
_PARK = text(f"""
    UPDATE provisioner.jobs j
    SET lease_until = NULL, published_at = NULL, phase = :phase, updated_at = now(), error = :reason,
        wait_reason = :reason, reason_code = :code, failing_since = NULL,
        {_COUNTS},
        next_attempt_at = CASE WHEN cancel_requested_at IS NOT NULL THEN now()
            ELSE now() + make_interval(secs => :delay_s) END
    WHERE {HELD}
""").bindparams(bindparam("reason", type_=MaskedText))
_END = text(f"""
    UPDATE provisioner.jobs j
    SET status = :status, phase = '{Step.ENDED}', error = :error, reason_code = :code, wait_reason = NULL,
        result = :result, warnings = :warnings, finished_at = now(), updated_at = now(), lease_until = NULL,
        next_attempt_at = NULL, published_at = NULL,
        {_COUNTS}
    WHERE {HELD}
""").bindparams(
    bindparam("error", type_=MaskedText),
    bindparam("result", type_=MaskedJson),
    bindparam("warnings", type_=MaskedJson),
)
_PAUSE = text(f"""
    UPDATE provisioner.roll_outs o SET paused_at = now() FROM provisioner.jobs j
    WHERE o.job_id = :job_id AND j.id = o.job_id AND j.status IN ({_OPEN}) AND o.paused_at IS NULL
""")
_RESUME = text(f"""
    UPDATE provisioner.roll_outs o SET paused_at = NULL, templates_at = now()
    FROM provisioner.jobs j
    WHERE o.job_id = :job_id AND j.id = o.job_id AND j.status IN ({_OPEN}) AND o.paused_at IS NOT NULL
""")
_PAUSE_IF_PROMOTED = text("""
    UPDATE provisioner.roll_outs o SET paused_at = now()
    WHERE o.job_id = :job_id AND o.paused_at IS NULL AND EXISTS (
        SELECT FROM provisioner.template_promotions p
        WHERE greatest(p.since, p.until) > o.templates_at AND (
            p.scope = 'organization' AND EXISTS (SELECT FROM gateways g WHERE g.id = ANY(o.gateways)
                AND g.organization_id::text = p.target_id::text)
            OR p.scope = 'role' AND EXISTS (SELECT FROM gateways g WHERE g.id = ANY(o.gateways)
                AND starts_with(p.target_id::text, g.organization_id::text))
            OR p.scope = 'gateway' AND p.target_id::text = ANY(o.gateways::text[])
            OR p.scope = 'board' AND EXISTS (SELECT FROM boards b WHERE b.gateway_id = ANY(o.gateways)
                AND b.id::text = p.target_id::text)
            OR p.scope = 'agent' AND EXISTS (SELECT FROM provisioner.roll_out_agents a
                WHERE a.job_id = o.job_id AND a.agent_id::text = p.target_id::text)))
""")
_MAKE_DUE = text("""
    UPDATE provisioner.jobs SET next_attempt_at = now()
    WHERE id = :job_id AND status = 'running' AND lease_until IS NULL AND published_at IS NULL
""")
