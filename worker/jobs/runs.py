"""Runs: jobs of many agents, worked at a window of rows at a time (decisions.md D5, D7).

The job's own row is leased for its first and last steps, with a generation as an agent's row is. In between
the rows' ends keep it going: each opens the next row, and the one that completes the run calls the finisher.
What a death in between leaves undone, the run's own look every SWEEP_S seconds does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, bindparam, text

from worker.jobs.messages import (
    Message,
    agent_message,
    finisher_message,
    job_message,
)
from worker.jobs.service_time import FAILING_SINCE, failing_s
from worker.jobs.store.leases import LeaseLostError, NotClaimed
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.masking.columns import MaskedJson, MaskedText

WINDOW = 6
"""Rows of one run that are begun at a time: its share of the workers, and where a cancel takes hold. As many
as a gateway has seats in one worker (`worker.provisioning.seats`); two cores are busy with fewer."""
SWEEP_S = 15.0
"""How often a run looks after itself."""


@dataclass(frozen=True)
class RunClaim:
    """A worker's hold on a run's own row. ``failing_s``: seconds since its present step failed for the first
    time, 0 where it has not."""

    job_id: UUID
    gateway_id: UUID
    options: Mapping[str, Any]
    phase: str
    generation: int
    attempts: int
    cancel_requested: bool
    failing_s: float = 0.0

    def option(self, name: str) -> bool:
        """A boolean option of the request; absent is false."""
        return self.options.get(name) is True


@dataclass(frozen=True)
class Progress:
    """How far a run is: agents that are done, of how many, and how many of them not well."""

    done: int
    total: int
    failed: int

    def __str__(self) -> str:
        failed = f", {self.failed} not well" if self.failed else ""
        return f"{self.done} of {self.total} agents{failed}"


_CLAIM = text(f"""
    UPDATE provisioner.jobs
    SET generation = generation + 1, attempts = attempts + (lease_until IS NOT NULL)::int,
        lease_until = now() + make_interval(secs => :lease_s),
        next_attempt_at = now() + make_interval(secs => :lease_s), published_at = NULL, updated_at = now()
    WHERE id = :job_id AND kind = 'sync_gateway' AND status = 'running' AND published_at IS NOT NULL
      AND (lease_until IS NULL OR lease_until < now())
    RETURNING id AS job_id, gateway_id, options, phase, generation, attempts,
        cancel_requested_at IS NOT NULL AS cancel_requested, {failing_s()} AS failing_s
""")


def claim_run(engine: Engine, job_id: UUID, *, lease_s: float) -> RunClaim | NotClaimed:
    """Take the run's own row for ``lease_s`` seconds, if a message for it was due."""
    with engine.begin() as connection:
        row = connection.execute(_CLAIM, {"job_id": job_id, "lease_s": lease_s}).one_or_none()
    return NotClaimed.NOTHING_TO_DO if row is None else RunClaim(**row._mapping)


_HELD = "id = :job_id AND generation = :generation AND status = 'running' AND lease_until IS NOT NULL"
_RENEW = text(f"""
    UPDATE provisioner.jobs SET lease_until = now() + make_interval(secs => :lease_s),
        next_attempt_at = now() + make_interval(secs => :lease_s)
    WHERE {_HELD}
""")
_PARK = text(f"""
    UPDATE provisioner.jobs
    SET lease_until = NULL, published_at = NULL, phase = coalesce(:phase, phase), updated_at = now(),
        error = :reason,
        failing_since = {FAILING_SINCE},
        next_attempt_at = CASE
            WHEN coalesce(:phase, phase) = 'agents' AND agents_done >= agents_total
            OR coalesce(:phase, phase) IN ('look', 'roster') AND cancel_requested_at IS NOT NULL
            THEN now() ELSE now() + make_interval(secs => :delay_s) END
    WHERE {_HELD}
""").bindparams(bindparam("reason", type_=MaskedText))


def renew_run(connection: Connection, held: RunClaim, *, lease_s: float) -> None:
    """Hold the row for another ``lease_s`` seconds. Raises LeaseLostError."""
    _require(connection.execute(_RENEW, {**_key(held), "lease_s": lease_s}).rowcount, held)


def park_run(
    connection: Connection,
    held: RunClaim,
    delay_s: float,
    phase: str | None = None,
    reason: str | None = None,
    failing_s: float | None = None,
) -> None:
    """Give the slot back; the clock publishes the run after ``delay_s`` seconds, unless it is called before.
    ``reason``: what it waits for, where that is a trouble; ``failing_s``: how long its step has been
    failing, where it is. Raises LeaseLostError."""
    parameters = {
        **_key(held),
        "delay_s": delay_s,
        "phase": phase,
        "reason": reason,
        "failing_s": failing_s,
    }
    _require(connection.execute(_PARK, parameters).rowcount, held)


_FAILING = text(f"SELECT {failing_s()} FROM provisioner.jobs WHERE id = :job_id")


def run_failing_s(connection: Connection, held: RunClaim) -> float:
    """Seconds since the run's present step failed for the first time; 0 where it has not."""
    return float(connection.execute(_FAILING, _key(held)).scalar_one_or_none() or 0)


_NEXT = text("""
    WITH next AS MATERIALIZED (
        SELECT job_id, agent_id FROM provisioner.job_agents
        WHERE job_id = :job_id AND status = 'pending' AND next_attempt_at IS NULL AND position IS NOT NULL
        ORDER BY position
        LIMIT greatest(0, :window - (
            SELECT count(*) FROM provisioner.job_agents o
            WHERE o.job_id = :job_id AND o.finished_at IS NULL AND o.next_attempt_at IS NOT NULL
        ))
        FOR UPDATE SKIP LOCKED
    ), opened AS (
        UPDATE provisioner.job_agents r
        SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
        FROM next
        WHERE r.job_id = next.job_id AND r.agent_id = next.agent_id
        RETURNING r.agent_id
    ), over AS (
        UPDATE provisioner.jobs j
        SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
        WHERE id = :job_id AND status = 'running' AND agents_done >= agents_total AND lease_until IS NULL
          AND (phase = 'agents' OR phase = 'main' AND NOT EXISTS (
                SELECT FROM provisioner.job_agents m
                WHERE m.job_id = j.id AND m.position IS NULL AND m.finished_at IS NULL))
        RETURNING id
    )
    SELECT ARRAY(SELECT agent_id FROM opened) AS opened, EXISTS (SELECT FROM over) AS over, agents_done,
        agents_total, gateway_id,
        (SELECT count(*) FROM provisioner.job_agents b
         WHERE b.job_id = :job_id AND b.status IN ('failed', 'not_attempted')) AS failed
    FROM provisioner.jobs WHERE id = :job_id
""")


def go_on(connection: Connection, job_id: UUID) -> tuple[list[Message], Progress]:
    """Fill the window, and call the finisher once there is nothing left to open or to wait for; what is
    returned must be sent after the commit."""
    parameters = {"job_id": job_id, "window": WINDOW, "republish_s": LOST_AFTER_S}
    row = connection.execute(_NEXT, parameters).one()
    messages = [agent_message(job_id, agent_id, row.gateway_id) for agent_id in row.opened]
    if row.over:
        messages.append(finisher_message(job_id))
    return messages, Progress(row.agents_done, row.agents_total, row.failed)


_OPEN_MAIN = text("""
    UPDATE provisioner.job_agents
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    WHERE job_id = :job_id AND position IS NULL AND status = 'pending' AND next_attempt_at IS NULL
    RETURNING agent_id, (SELECT gateway_id FROM provisioner.jobs WHERE id = :job_id) AS gateway_id
""")


def open_main(connection: Connection, job_id: UUID) -> list[Message]:
    """Begin the row of the gateway's main agent, if there is one that was not begun."""
    rows = connection.execute(_OPEN_MAIN, {"job_id": job_id, "republish_s": LOST_AFTER_S})
    return [agent_message(job_id, row.agent_id, row.gateway_id) for row in rows]


_LOCK = text("SELECT agents_total FROM provisioner.jobs WHERE id = :job_id FOR UPDATE")
_RECOUNT = text("""
    UPDATE provisioner.jobs SET agents_done = (
        SELECT count(*) FROM provisioner.job_agents
        WHERE job_id = :job_id AND position IS NOT NULL AND finished_at IS NOT NULL)
    WHERE id = :job_id RETURNING agents_done, agents_total
""")


def recount(connection: Connection, job_id: UUID) -> bool:
    """Count the rows that have ended, whatever was counted before; whether all have, the main one aside."""
    connection.execute(_LOCK, {"job_id": job_id})  # a row that ends waits for it, and is counted afterwards
    row = connection.execute(_RECOUNT, {"job_id": job_id}).one()
    return bool(row.agents_done >= row.agents_total)


_END_PENDING = text("""
    WITH ended AS (
        UPDATE provisioner.job_agents
        SET status = :status, reason = :reason, next_attempt_at = NULL, published_at = NULL,
            finished_at = now()
        WHERE job_id = :job_id AND status = 'pending'
        RETURNING position
    )
    UPDATE provisioner.jobs
    SET agents_done = agents_done + (SELECT count(position) FROM ended), updated_at = now()
    WHERE id = :job_id
""").bindparams(bindparam("reason", type_=MaskedText))


def end_pending(connection: Connection, job_id: UUID, status: str, reason: str) -> None:
    """End all rows that no worker has begun, the main agent's too."""
    connection.execute(_END_PENDING, {"job_id": job_id, "status": status, "reason": reason})


_END = text(f"""
    UPDATE provisioner.jobs
    SET status = :status, phase = 'ended', error = :error, result = :result, warnings = :warnings,
        finished_at = now(), updated_at = now(), lease_until = NULL, next_attempt_at = NULL,
        published_at = NULL
    WHERE {_HELD}
""").bindparams(
    bindparam("error", type_=MaskedText),
    bindparam("result", type_=MaskedJson),
    bindparam("warnings", type_=MaskedJson),
)


def end_run(
    connection: Connection,
    held: RunClaim,
    status: str,
    error: str | None,
    result: Mapping[str, Any],
    warnings: Sequence[str],
) -> list[Message]:
    """End the run, and call the sync that waits behind it. Raises LeaseLostError."""
    ending = {"status": status, "error": error, "result": dict(result), "warnings": list(warnings)}
    _require(connection.execute(_END, {**_key(held), **ending}).rowcount, held)
    return mark_next_run(connection, held.gateway_id)


_NEXT_RUN = text("""
    UPDATE provisioner.jobs
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    WHERE id = (
        SELECT id FROM provisioner.jobs
        WHERE gateway_id = :gateway_id AND kind = 'sync_gateway' AND status = 'queued'
          AND published_at IS NULL AND phase = 'waiting'
        ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id, kind, phase, status, agent_id, board_id, gateway_id
""")
_WAIT_BEHIND = text("""
    UPDATE provisioner.jobs
    SET published_at = NULL, phase = 'waiting', updated_at = now(),
        next_attempt_at = now() + make_interval(secs => :sweep_s)
    WHERE id = :job_id AND status = 'queued'
""")


def mark_next_run(connection: Connection, gateway_id: UUID) -> list[Message]:
    """Mark the oldest sync that waits for the gateway; send after the commit."""
    rows = connection.execute(_NEXT_RUN, {"gateway_id": gateway_id, "republish_s": LOST_AFTER_S})
    return [job_message(row) for row in rows]


def wait_behind(connection: Connection, job_id: UUID) -> None:
    """Leave a queued sync until the one that is under way has ended; it looks by itself too."""
    connection.execute(_WAIT_BEHIND, {"job_id": job_id, "sweep_s": SWEEP_S})


def _key(held: RunClaim) -> dict[str, Any]:
    return {"job_id": held.job_id, "generation": held.generation}


def _require(rows: int, held: RunClaim) -> None:
    if rows != 1:
        raise LeaseLostError(f"Another worker has taken over job {held.job_id}.")
