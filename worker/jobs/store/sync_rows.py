"""The agents' rows of a sync, at most MOST_OPEN_ROWS of them open at a time (decisions.md D7).

To open a row is to publish it for the first time. A worker that ends a row opens the next one, or after the
last one publishes the sync's own row (tasks.finish_sync). If the worker dies in between, the check that the
sync makes every SWEEP_S seconds catches up (`worker.jobs.store.sync_jobs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, text

from worker.jobs.messages import Message, agent_message, finisher_message
from worker.jobs.states import ReasonCode, Step
from worker.jobs.store.codes import refusal_code
from worker.jobs.store.drift import NOTE_DRIFT, OF_NO_ROLL_OUT
from worker.jobs.store.job_leases import HELD, JobClaim, key_of, require_held
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.masking.columns import MaskedJson, MaskedText

MOST_OPEN_ROWS = 6
"""How many rows of a sync are open at a time: its share of the workers, and the most rows that a cancel has
to wait for. As many as a gateway has slots in one worker (`worker.runtime.gateway_slots`); fewer already keep
two cores busy."""


@dataclass(frozen=True)
class Progress:
    """A sync's progress: how many of its agents' rows have ended, of how many, and how many agents failed."""

    done: int
    total: int
    failed: int

    def __str__(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {self.total} agents{failed}"


_NOTE = text(f"""
    WITH noted AS (
        UPDATE provisioner.job_agents r
        SET openclaw_id = f.openclaw_id, status = f.status, phase = f.phase, reason = f.reason,
            reason_code = f.reason_code,
            first_provision = f.first_provision, roster = f.roster, warnings = f.warnings,
            finished_at = CASE WHEN f.status <> 'pending' THEN now() END
        FROM jsonb_to_recordset(:rows) AS f
            (agent_id uuid, openclaw_id text, status text, phase text, reason text, reason_code text,
             first_provision boolean, roster jsonb, warnings jsonb)
        WHERE r.job_id = :job_id AND r.agent_id = f.agent_id AND r.status = 'pending'
        RETURNING r.agent_id, r.job_id, r.position, r.finished_at, r.reason_code
    ), drifted AS (
        INSERT INTO provisioner.agent_drift AS d (agent_id, gateway_id, job_id, differs)
        SELECT n.agent_id, j.gateway_id, n.job_id, jsonb_build_object('registered', false)
        FROM noted n JOIN provisioner.jobs j ON j.id = n.job_id
        WHERE n.reason_code = '{ReasonCode.NOT_REGISTERED}' AND (j.options ->> 'dry_run')::boolean
          AND {OF_NO_ROLL_OUT}
        {NOTE_DRIFT}
    )
    UPDATE provisioner.jobs
    SET agents_done = agents_done + (SELECT count(*) FROM noted
                                     WHERE position IS NOT NULL AND finished_at IS NOT NULL),
        phase = :phase
    WHERE {HELD}
""").bindparams(bindparam("rows", type_=MaskedJson))


def store_agent_plans(
    connection: Connection, held: JobClaim, rows: Sequence[Mapping[str, Any]], phase: str
) -> None:
    """Record the plan for each agent, and the sync's next step. A status other than ``pending`` ends the row.

    Each of ``rows`` has agent_id, openclaw_id, status, phase, reason, reason_code, first_provision, roster
    and warnings. Raises LeaseLostError.
    """
    values = {**key_of(held), "rows": list(rows), "phase": phase}
    require_held(connection.execute(_NOTE, values).rowcount, held)


@dataclass(frozen=True)
class ToCompare:
    """An agent of a sync that has not been compared. ``roster``: the change of its entry, as planned;
    ``is_settled``: only its workspace is left to look at; ``read_at``: when this was read, as Unix time by
    the database's clock."""

    agent_id: UUID
    position: int
    openclaw_id: str | None
    roster: Mapping[str, Any] | None
    warnings: Sequence[str]
    is_settled: bool
    read_at: float


_TO_COMPARE = text("""
    SELECT r.agent_id, r.position, r.openclaw_id, r.roster, r.warnings,
        r.status = 'pending' AND r.phase = 'files' AND r.first_provision IS NOT TRUE AS is_settled,
        extract(epoch FROM now())::float AS read_at
    FROM provisioner.job_agents r JOIN provisioner.jobs j ON j.id = r.job_id
    WHERE r.job_id = :job_id AND r.finished_at IS NULL AND r.position > coalesce(j.compared_to, 0)
    ORDER BY r.position LIMIT :most
""")


def agents_to_compare(connection: Connection, job_id: UUID, most: int) -> list[ToCompare]:
    """The next agents that the sync has to compare, at most so many."""
    rows = connection.execute(_TO_COMPARE, {"job_id": job_id, "most": most})
    return [ToCompare(**row._mapping) for row in rows]


_END_UNCHANGED = text(f"""
    WITH job AS MATERIALIZED (SELECT id FROM provisioner.jobs WHERE {HELD} FOR UPDATE),
    ended AS (
        UPDATE provisioner.job_agents r
        SET status = 'succeeded', phase = 'ended', reason = NULL, reason_code = NULL,
            openclaw_id = f.openclaw_id, roster = f.roster, first_provision = false,
            warnings = f.warnings, files = f.files,
            started_at = to_timestamp(:read_at), finished_at = now()
        FROM job, agents a, jsonb_to_recordset(:rows) AS f
            (agent_id uuid, version text, openclaw_id text, roster jsonb, files jsonb, warnings jsonb,
             equal boolean)
        WHERE r.job_id = job.id AND r.agent_id = f.agent_id AND r.status = 'pending'
          AND a.id = r.agent_id AND CAST(a.xmin AS text) = f.version
          AND NOT EXISTS (
            SELECT FROM provisioner.job_agents o
            WHERE o.agent_id = r.agent_id AND o.job_id <> r.job_id
              AND (o.status = 'running' OR o.finished_at >= to_timestamp(:read_at)))
        RETURNING r.agent_id, f.equal
    ), mended AS (
        DELETE FROM provisioner.agent_drift d USING ended e WHERE d.agent_id = e.agent_id AND e.equal
    )
    UPDATE provisioner.jobs j
    SET agents_done = agents_done + (SELECT count(*) FROM ended), phase = :phase,
        compared_to = greatest(compared_to, :position), updated_at = now()
    FROM job WHERE j.id = job.id
    RETURNING ARRAY(SELECT agent_id FROM ended) AS ended, j.cancel_requested_at IS NOT NULL AS cancelled,
        j.agents_done >= j.agents_total AND NOT EXISTS (
            SELECT FROM provisioner.job_agents m WHERE m.job_id = j.id AND m.position IS NULL) AS over
""").bindparams(bindparam("rows", type_=MaskedJson))


@dataclass(frozen=True)
class Compared:
    """What came of comparing some agents. ``ended``: those whose rows have ended; ``cancelled``: the sync is
    being cancelled; ``over``: all of the sync's rows have ended."""

    ended: Sequence[UUID]
    cancelled: bool
    over: bool


def end_unchanged(
    connection: Connection, held: JobClaim, rows: Sequence[Mapping[str, Any]], position: int, read_at: float
) -> Compared:
    """End the rows of agents that need nothing, and note how far the sync has compared.

    An agent that another job holds, or has held since ``read_at`` (Unix time by the database's clock), is
    left to its own row, and so is one whose row in ``agents`` has changed. Each of ``rows`` has agent_id, the
    version of the row in ``agents``, openclaw_id, roster, files, warnings, and whether the agent equals what
    was wanted. Raises LeaseLostError.
    """
    values = {"rows": list(rows), "position": position, "read_at": read_at, "phase": Step.COMPARE}
    row = connection.execute(_END_UNCHANGED, {**key_of(held), **values}).one_or_none()
    require_held(int(row is not None), held)
    assert row is not None
    return Compared(**row._mapping)


_SETTLED = text(f"""
    WITH settled AS (
        UPDATE provisioner.job_agents r
        SET status = CASE WHEN i.error IS NULL THEN r.status ELSE 'failed' END, reason = i.error,
            reason_code = {refusal_code("i")},
            phase = CASE WHEN i.error IS NULL THEN 'files' ELSE 'roster' END,
            finished_at = CASE WHEN i.error IS NULL THEN NULL ELSE now() END,
            first_provision = coalesce(NOT i.present_before, r.first_provision),
            warnings = CASE WHEN i.warning IS NULL THEN r.warnings
                            ELSE r.warnings || jsonb_build_array(i.warning) END
        FROM provisioner.roster_intents i
        WHERE r.job_id = :job_id AND r.status = 'pending' AND r.phase = 'roster'
          AND i.job_id = r.job_id AND i.agent_id = r.agent_id
        RETURNING r.position, r.finished_at
    )
    UPDATE provisioner.jobs
    SET agents_done = agents_done + (SELECT count(*) FROM settled
                                     WHERE position IS NOT NULL AND finished_at IS NOT NULL),
        phase = :phase
    WHERE {HELD}
""")


def settle_rows(connection: Connection, held: JobClaim, phase: str) -> None:
    """Continue the rows whose intents the roster writer has applied, fail those whose intents it refused, and
    note the sync's next step. Raises LeaseLostError."""
    require_held(connection.execute(_SETTLED, {**key_of(held), "phase": phase}).rowcount, held)


_NEXT = text("""
    WITH next AS MATERIALIZED (
        SELECT job_id, agent_id FROM provisioner.job_agents
        WHERE job_id = :job_id AND status = 'pending' AND next_attempt_at IS NULL AND position IS NOT NULL
        ORDER BY position
        LIMIT greatest(0, :most - (
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


def open_next_rows(connection: Connection, job_id: UUID) -> tuple[list[Message], Progress]:
    """Open further rows up to the limit; mark the sync's own row as published once all of them have ended.

    Returns the messages to send after the commit, and the sync's progress.
    """
    parameters = {"job_id": job_id, "most": MOST_OPEN_ROWS, "republish_s": LOST_AFTER_S}
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
    """Open the row of the gateway's main agent, if there is one and it was not opened before."""
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
    """Recount the rows that have ended; return whether all have, apart from the main agent's."""
    connection.execute(_LOCK, {"job_id": job_id})  # a row that ends now waits, and counts itself afterwards
    row = connection.execute(_RECOUNT, {"job_id": job_id}).one()
    return bool(row.agents_done >= row.agents_total)


_END_PENDING = text("""
    WITH ended AS (
        UPDATE provisioner.job_agents
        SET status = :status, reason = :reason, reason_code = :code, next_attempt_at = NULL,
            published_at = NULL, finished_at = now()
        WHERE job_id = :job_id AND status = 'pending'
        RETURNING position
    )
    UPDATE provisioner.jobs
    SET agents_done = agents_done + (SELECT count(position) FROM ended), updated_at = now()
    WHERE id = :job_id
""").bindparams(bindparam("reason", type_=MaskedText))


def end_pending(connection: Connection, job_id: UUID, status: str, reason: str, *, code: ReasonCode) -> None:
    """End all rows that no worker has claimed yet, the main agent's included. ``code``: ``reason`` for
    programs."""
    parameters = {"job_id": job_id, "status": status, "reason": reason, "code": code}
    connection.execute(_END_PENDING, parameters)
