"""The summary of a job, read from the database: it feeds the pages, the live views and ``--json`` alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from worker.jobs.states import OPEN_STATUSES
from worker.jobs.store.codes import crashes, outcome, reason_code, wait_reason
from worker.printable import readable_json
from worker.sync import result
from worker.workspace.actions import WRITES
from worker.workspace.display_text import one_line


@dataclass(frozen=True)
class AgentSummary:
    """One agent's part in a job. ``tries``: how many tries failed; ``crashes``: how many workers died at it;
    ``due_in_s``: seconds until a waiting row is taken up again, None while a worker has it, or once it has
    ended. In a sync, ``is_main`` marks the gateway's main agent, and ``roster`` holds the change to the
    agent's entry."""

    agent_id: UUID
    name: str
    is_board_lead: bool
    openclaw_id: str | None
    status: str
    phase: str | None
    reason: str | None
    warnings: Sequence[str]
    tries: int
    crashes: int
    in_hand: bool
    due_in_s: float | None
    first_provision: bool | None
    woken: bool
    files: Mapping[str, Mapping[str, Any]]
    took_s: float | None
    board_id: UUID | None = None
    board_name: str | None = None
    roster: Mapping[str, Any] | None = None
    is_main: bool = False
    reason_code: str | None = None
    outcome: str | None = None

    @property
    def row(self) -> result.Row:
        """The row as the rules for a sync's result take it."""
        return result.Row(
            self.agent_id,
            self.name,
            self.board_id,
            self.is_main,
            self.status,
            self.phase,
            self.reason,
            self.warnings,
            self.files,
            self.roster,
            self.outcome,
            self.reason_code,
        )


@dataclass(frozen=True)
class Named:
    """An agent's name, and its step or the reason why it failed."""

    agent_id: UUID
    name: str
    status: str
    what: str


@dataclass(frozen=True)
class Tally:
    """The agents of a job, counted by status. In a sync, the gateway's main agent counts in ``in_hand`` and
    ``waiting`` only; ``main`` is the status of its row, None without one.

    ``skipped`` leaves out those that are ``paused``. ``in_hand``: agents that a worker has now, the first of
    them named in ``at_work``. ``waits_for``: why the ``waiting`` ones wait. ``failures``: agents that failed
    or were skipped, the newest first.
    """

    total: int = 0
    done: int = 0
    unchanged: int = 0
    changed: int = 0
    failed: int = 0
    skipped: int = 0
    paused: int = 0
    not_attempted: int = 0
    cancelled: int = 0
    in_hand: int = 0
    waiting: int = 0
    waits_for: str | None = None
    main: str | None = None
    at_work: Sequence[Named] = ()
    failures: Sequence[Named] = ()


@dataclass(frozen=True)
class WebhookSummary:
    """The webhook that a job names, and the delivery to it. ``status``: pending, delivered or failed; None
    while no worker has looked the name up. ``answer``: the HTTP status of its last answer."""

    name: str
    status: str | None
    attempts: int
    answer: int | None
    error: str | None


@dataclass(frozen=True)
class RollOutAgent:
    """An agent's part in a roll-out. ``change``: the same for agents that get the same."""

    agent_id: UUID
    name: str
    gateway_name: str
    ring: int
    change: str
    state: str
    reason: str | None


@dataclass(frozen=True)
class RollOutSummary:
    """Where a roll-out stands. ``gateways``: their names; ``plan``: whom the first ring leaves out, and how
    often gateways restart."""

    gateways: Sequence[str]
    ring: int
    rings: int
    paused: bool
    wait_until: datetime | None
    plan: Mapping[str, Any]
    agents: Sequence[RollOutAgent]


@dataclass(frozen=True)
class JobSummary:
    """A job. Times are in seconds on Postgres's clock: ``age_s`` since the request, ``waited_s`` from the
    request to the start, ``took_s`` from the start to the end or to now. ``tries``, ``crashes``: the maximum
    over the job itself and its agents."""

    id: UUID
    kind: str
    status: str
    phase: str | None
    request_id: str | None
    requested_by: str | None
    agent_id: UUID | None
    agent_name: str | None
    board_id: UUID | None
    board_name: str | None
    gateway_id: UUID | None
    gateway_name: str | None
    parent_job_id: UUID | None
    options: Mapping[str, Any]
    result: Mapping[str, Any] | None
    warnings: Sequence[str]
    error: str | None
    agents_total: int
    agents_done: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    age_s: float
    waited_s: float | None
    took_s: float | None
    cancel_requested_at: datetime | None = None
    agents: Sequence[AgentSummary] = ()
    tally: Tally = Tally()
    reason_code: str | None = None
    wait_reason: str | None = None
    tries: int = 0
    crashes: int = 0
    webhook: WebhookSummary | None = None
    rollout: RollOutSummary | None = None

    @property
    def ended(self) -> bool:
        """Whether the job is over: it never opens again (decisions.md D6)."""
        return self.status not in OPEN_STATUSES

    @property
    def is_sync(self) -> bool:
        """Whether it is a sync of a gateway, with a row for each of many agents."""
        return self.kind == "sync_gateway"

    @property
    def is_about_many(self) -> bool:
        """Whether it is about a whole gateway and not about a single agent."""
        return self.agent_id is None and self.kind not in ("ensure_board_lead", "adopt_agent")

    @property
    def dry_run(self) -> bool:
        """Whether it only plans, and writes nothing."""
        return self.options.get("dry_run") is True

    @property
    def every_warning(self) -> Sequence[str]:
        """The job's warnings; those of its agents while it has none of its own."""
        return self.warnings or [warning for agent in self.agents for warning in agent.warnings]


_SHAPES: Mapping[str, dict[str, Any] | list[Any]] = {"options": {}, "result": {}, "warnings": []}
"""What is shown of a column whose JSON cannot be read or has another shape: services write rows too."""


def _within(column: str) -> str:
    """SQL: a time that Python can hold. A row may say infinity."""
    return (
        f"CASE WHEN {column} < '1970-01-01' THEN '1970-01-01'"
        f" WHEN {column} > '9999-01-01' THEN '9999-01-01' ELSE {column} END"
    )


_COLUMNS = f"""
    j.id, j.kind, j.status, j.phase, j.request_id, j.requested_by, j.agent_id, a.name AS agent_name,
    b.id AS board_id, b.name AS board_name, g.id AS gateway_id, g.name AS gateway_name, j.parent_job_id,
    CAST(j.options AS text) AS options, CAST(j.result AS text) AS result,
    CAST(j.warnings AS text) AS warnings, j.error, j.agents_total, j.agents_done,
    {reason_code("j", "error")} AS reason_code, {wait_reason("j")} AS wait_reason,
    greatest(j.tries, most.tries) AS tries, greatest({crashes("j")}, most.crashes) AS crashes,
    CASE WHEN coalesce(w.name, j.webhook) IS NOT NULL THEN jsonb_build_object(
        'name', coalesce(w.name, j.webhook), 'status', d.status, 'attempts', coalesce(d.attempts, 0),
        'answer', d.answer, 'error', d.error) END AS webhook,
    j.cancel_requested_at, t.created_at, t.started_at, t.finished_at,
    extract(epoch FROM now() - t.created_at)::float AS age_s,
    extract(epoch FROM t.started_at - t.created_at)::float AS waited_s,
    extract(epoch FROM coalesce(t.finished_at, now()) - t.started_at)::float AS took_s
"""
_TABLES = f"""
    provisioner.jobs j CROSS JOIN LATERAL (
        SELECT max(r.tries) AS tries, max({crashes("r")}) AS crashes
        FROM provisioner.job_agents r WHERE r.job_id = j.id
    ) most
    CROSS JOIN LATERAL (
        SELECT {_within("j.created_at")}, {_within("j.started_at")}, {_within("j.finished_at")}
    ) t (created_at, started_at, finished_at)
    LEFT JOIN provisioner.webhook_deliveries d ON d.job_id = j.id
    LEFT JOIN provisioner.webhooks w ON w.id = d.webhook_id
    LEFT JOIN agents a ON a.id = j.agent_id
    LEFT JOIN boards b ON b.id = coalesce(j.board_id, a.board_id)
    LEFT JOIN gateways g ON g.id = coalesce(j.gateway_id, a.gateway_id)
"""
_WRITES = " || ".join(f'@ == "{action}"' for action in WRITES)
_TALLY = f"""
    SELECT count(*) FILTER (WHERE counts) AS total,
        count(*) FILTER (WHERE counts AND finished_at IS NOT NULL) AS done,
        count(*) FILTER (WHERE counts AND status = 'succeeded' AND NOT changes) AS unchanged,
        count(*) FILTER (WHERE counts AND status = 'succeeded' AND changes) AS changed,
        count(*) FILTER (WHERE counts AND status = 'failed') AS failed,
        count(*) FILTER (WHERE counts AND status = 'skipped' AND NOT paused) AS skipped,
        count(*) FILTER (WHERE counts AND paused) AS paused,
        count(*) FILTER (WHERE counts AND status = 'not_attempted') AS not_attempted,
        count(*) FILTER (WHERE counts AND status = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE status = 'running' AND lease_until IS NOT NULL) AS in_hand,
        count(*) FILTER (WHERE waits) AS waiting,
        min(reason) FILTER (WHERE waits) AS waits_for,
        min(status) FILTER (WHERE NOT counts) AS main,
        coalesce((SELECT jsonb_agg(w) FROM (
            SELECT agent_id, agent_name AS name, status, coalesce(phase, 'begun') AS what
            FROM provisioner.job_agents
            WHERE job_id = j.id AND status = 'running' AND lease_until IS NOT NULL
            ORDER BY position NULLS LAST LIMIT :at_work
        ) w), '[]') AS at_work,
        coalesce((SELECT jsonb_agg(f) FROM (
            SELECT agent_id, agent_name AS name, status, reason AS what FROM provisioner.job_agents o
            WHERE job_id = j.id AND (status = 'failed' OR status = 'skipped' AND {outcome("o")} IS NULL)
            ORDER BY finished_at DESC, position LIMIT :failures
        ) f), '[]') AS failures
    FROM (
        SELECT status, {outcome("o")} IS NOT DISTINCT FROM 'paused' AS paused, reason, finished_at,
            lease_until,
            j.kind <> 'sync_gateway' OR position IS NOT NULL AS counts,
            finished_at IS NULL AND lease_until IS NULL AND reason IS NOT NULL AS waits,
            status = 'succeeded' AND (
                roster ->> 'action' IN ('create', 'update')
                OR files @? '$.*.action ? ({_WRITES})'
            ) IS TRUE AS changes
        FROM provisioner.job_agents o WHERE job_id = j.id
    ) r
"""
_SOME_JOBS = text(f"""
    SELECT {_COLUMNS}, to_jsonb(tally) AS tally FROM {_TABLES} CROSS JOIN LATERAL ({_TALLY}) tally
    WHERE j.id = ANY(:ids)
""")
_NEWEST_JOBS = text(f"""
    SELECT {_COLUMNS} FROM {_TABLES} WHERE CAST(:status AS text) IS NULL OR j.status = :status
    ORDER BY j.created_at DESC LIMIT :limit
""")
_AGENTS = text(f"""
    SELECT r.job_id, r.agent_id, coalesce(r.agent_name, a.name, r.agent_id::text) AS name,
        coalesce(a.is_board_lead, false) AS is_board_lead, r.openclaw_id, r.status, r.phase, r.reason,
        r.warnings, r.tries, {crashes("r")} AS crashes,
        r.status = 'running' AND r.lease_until IS NOT NULL AS in_hand,
        CASE WHEN r.lease_until IS NULL AND r.finished_at IS NULL
             THEN greatest(0, extract(epoch FROM r.next_attempt_at - now()))::float END AS due_in_s,
        r.first_provision, r.woken_at IS NOT NULL AS woken, r.files,
        extract(epoch FROM coalesce(r.finished_at, now()) - r.started_at)::float AS took_s,
        r.board_id, b.name AS board_name, r.roster,
        j.kind = 'sync_gateway' AND r.position IS NULL AS is_main,
        {reason_code("r")} AS reason_code, {outcome("r")} AS outcome
    FROM provisioner.job_agents r JOIN provisioner.jobs j ON j.id = r.job_id
    LEFT JOIN agents a ON a.id = r.agent_id LEFT JOIN boards b ON b.id = r.board_id
    WHERE r.job_id = ANY(:ids) AND (CAST(:whole AS boolean) OR j.kind <> 'sync_gateway')
    ORDER BY r.job_id, r.position, name
""")


_ROLL_OUT = text("""
    SELECT ARRAY(SELECT coalesce(g.name, u.id::text) FROM unnest(o.gateways) WITH ORDINALITY u (id, place)
                 LEFT JOIN gateways g ON g.id = u.id ORDER BY u.place) AS gateways,
        o.ring, o.rings, o.paused_at IS NOT NULL AS paused, o.wait_until, o.plan
    FROM provisioner.roll_outs o WHERE o.job_id = :id
""")
_ROLL_OUT_AGENTS = text("""
    SELECT r.agent_id, coalesce(r.agent_name, r.agent_id::text) AS name,
        coalesce(g.name, r.gateway_id::text) AS gateway_name, r.ring, r.change, r.state, r.reason
    FROM provisioner.roll_out_agents r LEFT JOIN gateways g ON g.id = r.gateway_id
    WHERE r.job_id = :id ORDER BY r.ring, name, r.agent_id
""")


def read_jobs(
    connection: Connection, ids: Sequence[UUID], *, whole: bool = True, at_work: int = 3, failures: int = 3
) -> list[JobSummary]:
    """Read these jobs, in the order of ``ids``; those that do not exist are left out.

    Unless ``whole``, a sync comes without its agents, so that it can be read often however many there are;
    its tally names at most ``at_work`` and ``failures`` of them.
    """
    limits = {"at_work": at_work, "failures": failures}
    # Jobs first: one that has ended then comes with its agents as they ended.
    jobs = connection.execute(_SOME_JOBS, {"ids": list(ids), **limits}).all()
    agents: dict[UUID, list[AgentSummary]] = {}
    for row in connection.execute(_AGENTS, {"ids": list(ids), "whole": whole}):
        values = dict(row._mapping)
        agents.setdefault(values.pop("job_id"), []).append(AgentSummary(**values))
    found = {row.id: _job(row, agents.get(row.id, ())) for row in jobs}
    for row in jobs:
        if row.kind == "roll_out":
            found[row.id] = replace(found[row.id], rollout=_roll_out(connection, row.id))
    return [found[key] for key in ids if key in found]


def _roll_out(connection: Connection, job_id: UUID) -> RollOutSummary | None:
    row = connection.execute(_ROLL_OUT, {"id": job_id}).one_or_none()
    if row is None:
        return None
    agents = [RollOutAgent(**each._mapping) for each in connection.execute(_ROLL_OUT_AGENTS, {"id": job_id})]
    return RollOutSummary(**row._mapping, agents=agents)


def newest_jobs(connection: Connection, *, status: str | None, limit: int) -> list[JobSummary]:
    """Read the newest jobs, the newest first, without agents and tally."""
    return [_job(row) for row in connection.execute(_NEWEST_JOBS, {"status": status, "limit": limit})]


def document(job: JobSummary, *, with_agents: bool = True) -> dict[str, Any]:
    """The job as ``--json`` prints it. Keys are only ever added: ``attempts`` is the older name of
    ``crashes``."""
    whole = asdict(job)
    agents = [{**agent, "attempts": agent["crashes"]} for agent in whole.pop("agents")]
    del whole["tally"]
    return {**whole, "attempts": job.crashes, "agents": agents} if with_agents else whole


def _job(row: Row[Any], agents: Sequence[AgentSummary] = ()) -> JobSummary:
    values = dict(row._mapping)
    name = values["agent_name"]
    if name is not None and one_line(name) != name:
        values["agent_name"] = None  # its id names it better, on a command line too
    for column, otherwise in _SHAPES.items():
        value = readable_json(values[column])
        values[column] = value if isinstance(value, type(otherwise)) else otherwise
    values["result"] = values["result"] or None
    values["webhook"] = values["webhook"] and WebhookSummary(**values["webhook"])
    return JobSummary(**{**values, "tally": _tally(values.get("tally", {}))}, agents=tuple(agents))


def _tally(counted: Mapping[str, Any]) -> Tally:
    names = {
        key: [_named(item) for item in items]
        for key in ("at_work", "failures")
        if (items := counted.get(key)) is not None
    }
    return Tally(**{**counted, **names})


def _named(item: Mapping[str, Any]) -> Named:
    name = item["name"] or item["agent_id"]
    return Named(UUID(item["agent_id"]), name, item["status"], item["what"] or item["status"])
