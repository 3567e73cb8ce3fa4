"""How far a sync is: one statement that returns counts and a few names, however many agents there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class Named:
    """An agent and what there is to say of it: its phase, or why it is not well."""

    agent_id: UUID
    name: str
    status: str
    what: str


@dataclass(frozen=True)
class RunProgress:
    """A sync under way. Counts are of agents, the main one aside, but for ``in_hand``: agents that a worker
    has now. ``waiting``: those that wait for something, ``waits_for`` for what; ``failures``: the newest
    first; ``main``: the status of the main agent's row, None without one. Times in seconds."""

    id: UUID
    gateway: str
    dry_run: bool
    status: str
    phase: str | None
    error: str | None
    cancel_requested: bool
    age_s: float
    took_s: float | None
    total: int
    done: int
    unchanged: int
    changed: int
    failed: int
    skipped: int
    paused: int
    not_attempted: int
    cancelled: int
    in_hand: int
    waiting: int
    waits_for: str | None
    main: str | None
    at_work: Sequence[Named]
    failures: Sequence[Named]

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.status not in ("queued", "running")


_READ = text("""
    SELECT j.id, coalesce(g.name, j.gateway_id::text, '') AS gateway, j.status, j.phase, j.error,
        coalesce((j.options ->> 'dry_run') = 'true', false) AS dry_run,
        j.cancel_requested_at IS NOT NULL AS cancel_requested,
        extract(epoch FROM now() - j.created_at)::float AS age_s,
        extract(epoch FROM coalesce(j.finished_at, now()) - j.started_at)::float AS took_s,
        c.*,
        coalesce((SELECT jsonb_agg(w) FROM (
            SELECT agent_id, agent_name AS name, status, coalesce(phase, 'begun') AS what
            FROM provisioner.job_agents
            WHERE job_id = j.id AND status = 'running' AND lease_until IS NOT NULL
            ORDER BY position NULLS LAST LIMIT :at_work
        ) w), '[]') AS at_work,
        coalesce((SELECT jsonb_agg(f) FROM (
            SELECT agent_id, agent_name AS name, status, reason AS what FROM provisioner.job_agents
            WHERE job_id = j.id AND (status = 'failed' OR status = 'skipped'
                                     AND coalesce(phase, '') NOT IN ('paused', 'deleted'))
            ORDER BY finished_at DESC, position LIMIT :failures
        ) f), '[]') AS failures
    FROM provisioner.jobs j
    LEFT JOIN gateways g ON g.id = j.gateway_id
    CROSS JOIN LATERAL (
        SELECT count(position) AS total,
            count(position) FILTER (WHERE finished_at IS NOT NULL) AS done,
            count(position) FILTER (WHERE status = 'succeeded' AND NOT changes) AS unchanged,
            count(position) FILTER (WHERE status = 'succeeded' AND changes) AS changed,
            count(position) FILTER (WHERE status = 'failed') AS failed,
            count(position) FILTER (WHERE status = 'skipped' AND phase IS DISTINCT FROM 'paused') AS skipped,
            count(position) FILTER (WHERE status = 'skipped' AND phase = 'paused') AS paused,
            count(position) FILTER (WHERE status = 'not_attempted') AS not_attempted,
            count(position) FILTER (WHERE status = 'cancelled') AS cancelled,
            count(*) FILTER (WHERE status = 'running' AND lease_until IS NOT NULL) AS in_hand,
            count(*) FILTER (WHERE waits) AS waiting,
            min(reason) FILTER (WHERE waits) AS waits_for,
            min(status) FILTER (WHERE position IS NULL) AS main
        FROM (
            SELECT position, status, phase, reason, finished_at, lease_until,
                finished_at IS NULL AND lease_until IS NULL AND reason IS NOT NULL AS waits,
                status = 'succeeded' AND (
                    roster ->> 'action' IN ('create', 'update')
                    OR files @? '$.*.action ? (@ == "create" || @ == "update")'
                ) IS TRUE AS changes
            FROM provisioner.job_agents WHERE job_id = j.id
        ) r
    ) c
    WHERE j.id = :id AND j.kind = 'sync_gateway'
""")


def read_progress(
    connection: Connection, job_id: UUID, *, at_work: int = 3, failures: int = 3
) -> RunProgress | None:
    """How far the sync is, with so many names; None where the job is no sync, or is gone."""
    parameters = {"id": job_id, "at_work": at_work, "failures": failures}
    row = connection.execute(_READ, parameters).one_or_none()
    if row is None:
        return None
    values = dict(row._mapping)
    for name in ("at_work", "failures"):
        values[name] = [_named(item) for item in values[name]]
    return RunProgress(**values)


def _named(item: dict[str, Any]) -> Named:
    name = item["name"] or item["agent_id"]
    return Named(UUID(item["agent_id"]), name, item["status"], item["what"] or item["status"])
