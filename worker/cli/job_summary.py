"""Jobs and their agents' rows, read for showing; ``document`` is what ``--json`` prints of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from models.jobs import OPEN_STATUSES
from worker.workspace.naming import one_line


@dataclass(frozen=True)
class AgentSummary:
    """One agent's part in a job. ``due_in_s``: until the clock brings a parked row back, None while a worker
    has it in hand or it is over. In a sync, ``is_main``: it is the gateway's main agent; ``roster``: what
    changes of its entry."""

    agent_id: UUID
    name: str
    is_board_lead: bool
    openclaw_id: str | None
    status: str
    phase: str | None
    reason: str | None
    warnings: Sequence[str]
    attempts: int
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


@dataclass(frozen=True)
class JobSummary:
    """A job. Times are seconds on Postgres's clock: ``age_s`` since it was asked for, ``waited_s`` from then
    to its start, ``took_s`` from its start to its end or now."""

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

    @property
    def ended(self) -> bool:
        """Whether the job is over: it never opens again (decisions.md D6)."""
        return self.status not in OPEN_STATUSES

    @property
    def attempts(self) -> int:
        """Claims that ended without a word: workers that died while at work on it."""
        return max((row.attempts for row in self.agents), default=0)


_JOBS = """
    SELECT j.id, j.kind, j.status, j.phase, j.request_id, j.requested_by, j.agent_id, a.name AS agent_name,
        b.id AS board_id, b.name AS board_name, g.id AS gateway_id, g.name AS gateway_name, j.parent_job_id,
        j.options, j.result, j.warnings, j.error, j.agents_total, j.agents_done,
        j.cancel_requested_at, j.created_at, j.started_at, j.finished_at,
        extract(epoch FROM now() - j.created_at)::float AS age_s,
        extract(epoch FROM j.started_at - j.created_at)::float AS waited_s,
        extract(epoch FROM coalesce(j.finished_at, now()) - j.started_at)::float AS took_s
    FROM provisioner.jobs j
    LEFT JOIN agents a ON a.id = j.agent_id
    LEFT JOIN boards b ON b.id = coalesce(j.board_id, a.board_id)
    LEFT JOIN gateways g ON g.id = coalesce(j.gateway_id, a.gateway_id)
"""
_SOME_JOBS = text(f"{_JOBS} WHERE j.id = ANY(:ids)")
_NEWEST_JOBS = text(
    f"{_JOBS} WHERE (CAST(:status AS text) IS NULL OR j.status = :status)"
    " ORDER BY j.created_at DESC LIMIT :limit"
)

_ROWS = text("""
    SELECT r.job_id, r.agent_id, coalesce(r.agent_name, a.name, r.agent_id::text) AS name,
        coalesce(a.is_board_lead, false) AS is_board_lead, r.openclaw_id, r.status, r.phase, r.reason,
        r.warnings, r.attempts, r.status = 'running' AND r.lease_until IS NOT NULL AS in_hand,
        CASE WHEN r.lease_until IS NULL AND r.finished_at IS NULL
             THEN greatest(0, extract(epoch FROM r.next_attempt_at - now()))::float END AS due_in_s,
        r.first_provision, r.woken_at IS NOT NULL AS woken, r.files,
        extract(epoch FROM coalesce(r.finished_at, now()) - r.started_at)::float AS took_s,
        r.board_id, b.name AS board_name, r.roster,
        j.kind = 'sync_gateway' AND r.position IS NULL AS is_main
    FROM provisioner.job_agents r JOIN provisioner.jobs j ON j.id = r.job_id
    LEFT JOIN agents a ON a.id = r.agent_id LEFT JOIN boards b ON b.id = r.board_id
    WHERE r.job_id = ANY(:ids) ORDER BY r.job_id, r.position, name
""")


def read_jobs(connection: Connection, ids: Sequence[UUID]) -> list[JobSummary]:
    """These jobs with their agents' rows, in the order asked for; those that do not exist are left out."""
    # Jobs first: one that has ended then comes with its agents as they ended.
    jobs = connection.execute(_SOME_JOBS, {"ids": list(ids)}).all()
    agents: dict[UUID, list[AgentSummary]] = {}
    for row in connection.execute(_ROWS, {"ids": list(ids)}):
        values = dict(row._mapping)
        agents.setdefault(values.pop("job_id"), []).append(AgentSummary(**values))
    found = {row.id: _job(row, agents.get(row.id, ())) for row in jobs}
    return [found[key] for key in ids if key in found]


def newest_jobs(connection: Connection, *, status: str | None, limit: int) -> list[JobSummary]:
    """The newest jobs first, without their agents' rows."""
    return [_job(row) for row in connection.execute(_NEWEST_JOBS, {"status": status, "limit": limit})]


def document(job: JobSummary, *, with_agents: bool = True) -> dict[str, Any]:
    """The job as JSON. Keys are only ever added."""
    whole = asdict(job)
    agents = whole.pop("agents")
    whole["attempts"] = job.attempts
    if with_agents:
        whole["agents"] = agents
    else:
        del whole["attempts"]
    return whole


def _job(row: Row[Any], agents: Sequence[AgentSummary] = ()) -> JobSummary:
    values = dict(row._mapping)
    name = values["agent_name"]
    if name is not None and one_line(name) != name:
        values["agent_name"] = None  # its id names it better, on a command line too
    return JobSummary(**values, agents=tuple(agents))
