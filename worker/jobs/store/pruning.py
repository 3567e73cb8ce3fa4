"""Deletes jobs that ended long ago, in batches, with their agents' rows and settled intents.

Open jobs are kept, and so are the newest ended job of each agent (it shows the agent's state, and its gateway
once the agent's row is gone), jobs that a schedule names, and those that have an agent keep something.
Records of files and credentials are not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Engine, text

BATCH = 500
"""How many jobs one transaction examines."""


@dataclass(frozen=True)
class Pruned:
    """How many rows of each table were deleted, or in a dry run would be."""

    jobs: int = 0
    agents: int = 0
    intents: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(self.jobs + other.jobs, self.agents + other.agents, self.intents + other.intents)


def prune(engine: Engine, older_than: timedelta, *, dry_run: bool = False) -> Iterator[Pruned]:
    """Delete jobs that ended longer ago than ``older_than``, and yield the counts of each batch. A dry run
    counts the same rows and deletes none. What is on record of the drift of agents that were deleted or moved
    goes with them."""
    if not dry_run:
        with engine.begin() as connection:
            connection.execute(_FORGET_DRIFT)
    with engine.connect() as connection:
        before = connection.execute(_BEFORE, {"older_than": older_than}).scalar_one()
    place = {"before": before, "finished_at": None, "id": None}
    while True:
        with engine.begin() as connection:
            scanned = connection.execute(_BATCH, {**place, "batch": BATCH}).all()
            if not scanned:
                return
            ids = [row.id for row in scanned if row.spare]
            removed = _remove(connection, ids, dry_run=dry_run) if ids else Pruned()
        yield removed  # after the commit: whoever has seen enough does not come back
        place |= {"finished_at": scanned[-1].finished_at, "id": scanned[-1].id}


def _remove(connection: Connection, ids: list[object], *, dry_run: bool) -> Pruned:
    row = connection.execute(_COUNT if dry_run else _DELETE, {"ids": ids}).one()
    return Pruned(row.jobs, row.agents, row.intents)


_BEFORE = text("SELECT now() - CAST(:older_than AS interval)")
_BATCH = text("""
    WITH scanned AS (
        SELECT id, agent_id, finished_at FROM provisioner.jobs
        WHERE status NOT IN ('queued', 'running') AND finished_at < :before
          AND (CAST(:finished_at AS timestamptz) IS NULL OR (finished_at, id) > (:finished_at, :id))
        ORDER BY finished_at, id LIMIT :batch
    )
    SELECT l.id, l.finished_at, NOT (
        EXISTS (SELECT FROM provisioner.roster_intents i
                WHERE i.job_id = l.id AND i.applied_at IS NULL AND i.error IS NULL)
        OR EXISTS (SELECT FROM provisioner.sync_schedules s WHERE s.last_job_id = l.id)
        OR EXISTS (SELECT FROM provisioner.held_files h WHERE h.job_id = l.id)
        OR EXISTS (SELECT FROM provisioner.held_fields h WHERE h.job_id = l.id)
        OR EXISTS (
            SELECT FROM provisioner.job_agents r JOIN provisioner.jobs j ON j.id = r.job_id
            WHERE r.job_id = l.id AND NOT (j.kind = 'delete_agent' AND j.status = 'succeeded')
              AND NOT EXISTS (
                SELECT FROM provisioner.job_agents n JOIN provisioner.jobs o ON o.id = n.job_id
                WHERE n.agent_id = r.agent_id AND o.status NOT IN ('queued', 'running')
                  AND (o.finished_at, o.id) > (l.finished_at, l.id)
                  AND (n.openclaw_id IS NOT NULL OR r.openclaw_id IS NULL)))
        OR NOT EXISTS (SELECT FROM provisioner.job_agents r WHERE r.job_id = l.id)
            AND EXISTS (SELECT FROM agents a WHERE a.id = l.agent_id)
            AND NOT EXISTS (
                SELECT FROM provisioner.jobs o
                WHERE o.agent_id = l.agent_id AND o.status NOT IN ('queued', 'running')
                  AND (o.finished_at, o.id) > (l.finished_at, l.id))
    ) AS spare
    FROM scanned l ORDER BY l.finished_at, l.id
""")
_FORGET_DRIFT = text("""
    DELETE FROM provisioner.agent_drift d
    WHERE NOT EXISTS (SELECT FROM agents a WHERE a.id = d.agent_id AND a.gateway_id = d.gateway_id)
""")
_COUNT = text("""
    SELECT cardinality(CAST(:ids AS uuid[])) AS jobs,
        (SELECT count(*) FROM provisioner.job_agents WHERE job_id = ANY(:ids)) AS agents,
        (SELECT count(*) FROM provisioner.roster_intents WHERE job_id = ANY(:ids)) AS intents
""")
_DELETE = text("""
    WITH agents AS (
        DELETE FROM provisioner.job_agents WHERE job_id = ANY(:ids) RETURNING job_id
    ), intents AS (
        DELETE FROM provisioner.roster_intents WHERE job_id = ANY(:ids) RETURNING job_id
    ), jobs AS (
        DELETE FROM provisioner.jobs WHERE id = ANY(:ids) RETURNING id
    )
    SELECT (SELECT count(*) FROM jobs) AS jobs, (SELECT count(*) FROM agents) AS agents,
        (SELECT count(*) FROM intents) AS intents
""")
