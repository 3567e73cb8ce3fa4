"""Writes one agent's row in a job: start, claim, advance, renew, park and finish it (decisions.md D5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeEngine

from worker.database import single
from worker.jobs import service_time
from worker.jobs.kinds import ONE_AGENT_KINDS
from worker.jobs.requests import Request
from worker.jobs.states import AgentOutcome, ReasonCode
from worker.jobs.store.busy_agents import postpone
from worker.jobs.store.drift import NOTE_DRIFT, OF_NO_ROLL_OUT
from worker.jobs.store.leases import LeaseLostError, NotClaimed, count_crash
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.masking.columns import MaskedJson, MaskedText


@dataclass(frozen=True)
class Claim:
    """A worker's hold on one agent's row of a job.

    ``single``: the job is about this one agent; ``tries``: how many earlier tries failed; ``crashes``: how
    many workers died while they held the row; ``age_s``: seconds since its first claim; ``failing_s``: for
    how many seconds its current step has been failing, 0 if it is not; ``roster``: in a sync, the roster
    change that the sync planned for the agent.
    """

    job_id: UUID
    agent_id: UUID
    kind: str
    single: bool
    options: Mapping[str, Any]
    gateway_id: UUID | None
    generation: int
    tries: int
    crashes: int
    phase: str | None
    first_provision: bool | None
    status_before: str | None
    wake_key: str | None
    wake_sent_at: datetime | None
    woken_at: datetime | None
    files: Mapping[str, Any]
    warnings: tuple[str, ...]
    cancel_requested: bool
    age_s: float
    failing_s: float = 0.0
    roster: Mapping[str, Any] | None = None
    requested_by: str | None = None


AGENT_NAME = r"regexp_replace(left(a.name, 200), '\s+', ' ', 'g')"
"""SQL: an agent's name on one line, 200 characters at most, for rows that people read."""
ABOUT_TO_ASK = """EXISTS (
        SELECT FROM provisioner.job_agents r JOIN provisioner.jobs j ON j.id = r.job_id
        WHERE j.gateway_id = :gateway_id AND r.status = 'running' AND r.lease_until > now()
          AND coalesce(r.phase, 'intent') = 'intent'
    )"""
"""SQL: whether a worker has leased an agent of ``:gateway_id`` and may be about to record a roster intent."""

_START_SINGLE = text(f"""
    WITH job AS (
        UPDATE provisioner.jobs
        SET status = 'running', started_at = now(), updated_at = now(), next_attempt_at = NULL,
            published_at = NULL, agents_total = 1, options = :options, organization_id = b.organization_id,
            board_id = coalesce(a.board_id, jobs.board_id),
            gateway_id = coalesce(jobs.gateway_id, a.gateway_id)
        FROM (SELECT :agent_id AS id) AS wanted
        LEFT JOIN agents a ON a.id = wanted.id
        LEFT JOIN boards b ON b.id = a.board_id
        WHERE jobs.id = :job_id AND jobs.status = 'queued'
        RETURNING jobs.id, {AGENT_NAME} AS name, a.board_id, jobs.gateway_id
    )
    INSERT INTO provisioner.job_agents (job_id, agent_id, agent_name, board_id, published_at, next_attempt_at)
    SELECT id, :agent_id, name, board_id, now(), now() + make_interval(secs => :republish_s) FROM job
    ON CONFLICT DO NOTHING
    RETURNING (SELECT gateway_id FROM job)
""").bindparams(bindparam("options", type_=JSONB))

_CLAIM = text(f"""
    UPDATE provisioner.job_agents r
    SET status = 'running', generation = r.generation + 1,
        {count_crash("r.")},
        lease_until = now() + make_interval(secs => :lease_s),
        next_attempt_at = now() + make_interval(secs => :lease_s),
        published_at = NULL, started_at = coalesce(r.started_at, now()), reason = NULL,
        reason_code = NULL, wake = NULL
    FROM provisioner.jobs j
    WHERE r.job_id = :job_id AND r.agent_id = :agent_id AND j.id = r.job_id AND j.status = 'running'
      AND j.kind = :kind
      AND r.status IN ('pending', 'running') AND r.published_at IS NOT NULL
      AND (r.lease_until IS NULL OR r.lease_until < now())
    RETURNING r.job_id, r.agent_id, j.kind, j.options, j.gateway_id, j.requested_by,
        r.generation, r.tries, r.crashes, r.phase, r.first_provision, r.status_before,
        r.wake_key, r.wake_sent_at, r.woken_at, r.files, r.warnings, r.roster,
        j.cancel_requested_at IS NOT NULL AS cancel_requested,
        extract(epoch FROM now() - r.started_at)::float AS age_s,
        {service_time.failing_s("r.failing_since")} AS failing_s
""")


def start_single(connection: Connection, job_id: UUID, agent_id: UUID, request: Request) -> UUID | None:
    """Start a queued job about one agent: insert the agent's row, and store the options with all defaults.

    Returns the job's gateway, if known. Does nothing and returns None if the job has already started.
    """
    parameters = {"agent_id": agent_id, "options": request.options()}
    started = connection.execute(_START_SINGLE, {"job_id": job_id, **parameters, "republish_s": LOST_AFTER_S})
    return started.scalar_one_or_none()


def claim(engine: Engine, job_id: UUID, agent_id: UUID, kind: str, *, lease_s: float) -> Claim | NotClaimed:
    """Lease the agent's row for ``lease_s`` seconds, if its job is running and of that kind, the row is
    published and not leased, and no other job holds the agent.

    A lease that ran out counts as a crash, since a worker died; a planned wait does not. The row is in no
    batch of wakes any more.
    """
    target = {"job_id": job_id, "agent_id": agent_id}
    try:
        with single(engine) as connection:
            parameters = {**target, "kind": kind, "lease_s": lease_s}
            row = connection.execute(_CLAIM, parameters).one_or_none()
    except IntegrityError:  # the index that lets one job at a time hold an agent
        with engine.begin() as connection:
            postpone(connection, job_id, agent_id)
        return NotClaimed.AGENT_BUSY
    if row is None:
        return NotClaimed.NOTHING_TO_DO
    values = dict(row._mapping)
    values["warnings"] = tuple(values["warnings"])
    return Claim(**values, single=kind in ONE_AGENT_KINDS)


_ADVANCE = """
    UPDATE provisioner.job_agents
    SET failing_since = CASE WHEN coalesce(:phase, phase) IS NOT DISTINCT FROM phase
            THEN failing_since END,
        phase = coalesce(:phase, phase), lease_until = now() + make_interval(secs => :lease_s),
        next_attempt_at = now() + make_interval(secs => :lease_s){assignments}
    WHERE job_id = :job_id AND agent_id = :agent_id AND generation = :generation AND status = 'running'
      AND lease_until IS NOT NULL
"""
_ADVANCED_COLUMNS = {
    "first_provision": "first_provision = :first_provision",
    "status_before": "status_before = coalesce(status_before, :status_before)",
    "openclaw_id": "openclaw_id = :openclaw_id",
    "agent_name": "agent_name = coalesce(agent_name, :agent_name)",
    "files": "files = :files",
    "warnings": "warnings = :warnings",
    "wake_key": "wake_key = coalesce(wake_key, :wake_key)",
    "wake_sent_at": "wake_sent_at = coalesce(wake_sent_at, now())",
    "wake_unsent": "wake_sent_at = NULL",
    "wake": "wake = :wake",
}


def advance(
    connection: Connection, held: Claim, phase: str | None, *, lease_s: float, **columns: Any
) -> None:
    """Record the step (None keeps it) and what was learned, and renew the lease. Raises LeaseLostError."""
    assignments = "".join(f", {_ADVANCED_COLUMNS[name]}" for name in columns)
    statement = text(_ADVANCE.format(assignments=assignments))
    types: dict[str, TypeEngine[Any]] = {"files": MaskedJson(), "warnings": MaskedJson()}
    types["wake"] = JSONB(none_as_null=True)  # not masked: it is the message to the agent
    for name in types.keys() & columns.keys():
        statement = statement.bindparams(bindparam(name, type_=types[name]))
    values = {name: value for name, value in columns.items() if name not in ("wake_sent_at", "wake_unsent")}
    parameters = {**_held(held), **values, "phase": phase, "lease_s": lease_s}
    _require_one(connection.execute(statement, parameters).rowcount, held)


_RENEW = text("""
    UPDATE provisioner.job_agents
    SET lease_until = now() + make_interval(secs => :lease_s),
        next_attempt_at = now() + make_interval(secs => :lease_s)
    WHERE job_id = :job_id AND agent_id = :agent_id AND generation = :generation AND status = 'running'
      AND lease_until IS NOT NULL
""")


def renew(connection: Connection, held: Claim, *, lease_s: float) -> None:
    """Hold the row for another ``lease_s`` seconds. Raises LeaseLostError, also if this worker gave the lease
    back."""
    _require_one(connection.execute(_RENEW, {**_held(held), "lease_s": lease_s}).rowcount, held)


_PARK = text(f"""
    UPDATE provisioner.job_agents
    SET lease_until = NULL, published_at = NULL, phase = coalesce(:phase, phase), reason = :reason,
        reason_code = :code, failing_since = {service_time.FAILING_SINCE},
        tries = tries + CAST(:failed AS boolean)::int,
        next_attempt_at = now() + make_interval(secs => CASE WHEN EXISTS (
            SELECT FROM provisioner.jobs j WHERE j.id = :job_id AND j.cancel_requested_at IS NOT NULL
        ) THEN 0 ELSE :delay_s END)
    WHERE job_id = :job_id AND agent_id = :agent_id AND generation = :generation AND status = 'running'
      AND lease_until IS NOT NULL
""").bindparams(bindparam("reason", type_=MaskedText))


def park(
    connection: Connection,
    held: Claim,
    delay_s: float,
    reason: str,
    phase: str | None = None,
    failing_s: float | None = None,
    *,
    code: ReasonCode | None = None,
    failed: bool = False,
) -> None:
    """Give the lease back and keep the agent. Raises LeaseLostError.

    The row is due in ``delay_s`` seconds, at once if the job is being cancelled, or when another transaction
    makes it due. ``reason``: what the row waits for, with ``code`` for programs; ``phase``: the step from now
    on, None to keep it; ``failing_s``: for how many seconds its step has been failing, None if it is not;
    ``failed``: this try failed.
    """
    values = {
        **_held(held),
        "delay_s": delay_s,
        "reason": reason,
        "code": code,
        "phase": phase,
        "failing_s": failing_s,
        "failed": failed,
    }
    _require_one(connection.execute(_PARK, values).rowcount, held)


_SET_BACK = text("""
    UPDATE provisioner.job_agents
    SET status = 'pending', lease_until = NULL, published_at = NULL,
        phase = CASE WHEN CAST(:single AS boolean) THEN NULL ELSE phase END,
        started_at = NULL, failing_since = NULL, status_before = NULL, reason = :reason, reason_code = :code,
        next_attempt_at = now() + make_interval(secs => CASE WHEN EXISTS (
            SELECT FROM provisioner.jobs j WHERE j.id = :job_id AND j.cancel_requested_at IS NOT NULL
        ) THEN 0 ELSE :delay_s END)
    WHERE job_id = :job_id AND agent_id = :agent_id AND generation = :generation AND status = 'running'
      AND lease_until IS NOT NULL
""").bindparams(bindparam("reason", type_=MaskedText))


def set_back(connection: Connection, held: Claim, delay_s: float, reason: str, code: ReasonCode) -> None:
    """Give the lease and the agent back, as if the row had not begun; it is due in ``delay_s`` seconds, at
    once if its job is being cancelled. Raises LeaseLostError.

    ``reason``: what the row waits for, with ``code`` for programs.
    """
    wait = {"delay_s": delay_s, "reason": reason, "code": code, "single": held.single}
    _require_one(connection.execute(_SET_BACK, {**_held(held), **wait}).rowcount, held)


_FAILING = text(f"""
    SELECT {service_time.failing_s()}
    FROM provisioner.job_agents WHERE job_id = :job_id AND agent_id = :agent_id
""")


def failing_s(connection: Connection, held: Claim) -> float:
    """For how many seconds the row's current step has been failing; 0 if it is not."""
    return float(connection.execute(_FAILING, _held(held)).scalar_one_or_none() or 0)


_FINISH = text(f"""
    WITH finished AS (
        UPDATE provisioner.job_agents
        SET status = :status,
            phase = coalesce(CAST(:phase AS text),
                             CASE WHEN :status = 'succeeded' THEN 'ended' ELSE phase END),
            reason = :reason, reason_code = :code, outcome = :outcome, warnings = :warnings,
            files = coalesce(:files, files),
            lease_until = NULL, next_attempt_at = NULL, published_at = NULL, finished_at = now(),
            woken_at = CASE WHEN :woken THEN coalesce(woken_at, now()) ELSE woken_at END
        WHERE job_id = :job_id AND agent_id = :agent_id AND generation = :generation AND status = 'running'
          AND lease_until IS NOT NULL
        RETURNING job_id, agent_id, position
    ), drifted AS (
        INSERT INTO provisioner.agent_drift AS d (agent_id, gateway_id, job_id, differs)
        SELECT f.agent_id, j.gateway_id, f.job_id, :differs
        FROM finished f JOIN provisioner.jobs j ON j.id = f.job_id
        WHERE CAST(:differs AS jsonb) IS NOT NULL AND (:dry_run AND {OF_NO_ROLL_OUT} OR EXISTS (
            SELECT FROM provisioner.agent_drift k WHERE k.agent_id = f.agent_id))
        {NOTE_DRIFT}
    ), mended AS (
        DELETE FROM provisioner.agent_drift USING finished f
        WHERE agent_drift.agent_id = f.agent_id AND :equal
    )
    UPDATE provisioner.jobs
    SET agents_done = agents_done + (:single OR finished.position IS NOT NULL)::int, updated_at = now(),
        status = CASE WHEN :single THEN :job_status ELSE status END,
        phase = CASE WHEN :single THEN 'ended' ELSE jobs.phase END,
        error = CASE WHEN :single AND :job_status <> 'succeeded' THEN :reason ELSE error END,
        reason_code = CASE WHEN :single AND :job_status <> 'succeeded' THEN :code ELSE reason_code END,
        result = CASE WHEN :single THEN :result ELSE result END,
        warnings = CASE WHEN :single THEN :warnings ELSE warnings END,
        finished_at = CASE WHEN :single THEN now() ELSE finished_at END
    FROM finished WHERE jobs.id = finished.job_id
""").bindparams(
    bindparam("reason", type_=MaskedText),
    bindparam("warnings", type_=MaskedJson),
    bindparam("files", type_=MaskedJson),
    bindparam("result", type_=MaskedJson),
    bindparam("differs", type_=MaskedJson),
)


# Of a job about one agent; a job of many counts its rows instead.
_JOB_STATUS = {"succeeded": "succeeded", "skipped": "failed", "failed": "failed", "cancelled": "cancelled"}


def finish(
    connection: Connection,
    held: Claim,
    status: str,
    *,
    reason: str | None = None,
    result: Mapping[str, Any] | None = None,
    warnings: list[str],
    files: Mapping[str, Any] | None = None,
    code: ReasonCode | None = None,
    outcome: AgentOutcome | None = None,
    differs: Mapping[str, Any] | None = None,
) -> None:
    """End the agent's row, and also its job if that is about one agent.

    ``files``: None keeps what the row has; ``code``: ``reason`` for programs; ``outcome``: why an agent was
    skipped, if that is no error; ``differs``: what the agent still differs in after a success, empty if
    nothing, None if the job does not tell (`worker.records.drift`). ``phase`` becomes ``ended`` after a
    success and `AgentOutcome.phase` with an ``outcome``, else it stays as it is. Raises LeaseLostError.
    """
    values = {
        **_held(held),
        "dry_run": held.options.get("dry_run") is True,
        "differs": dict(differs) if differs else None,
        "equal": status == "succeeded" and differs is not None and not differs,
        "status": status,
        "job_status": _JOB_STATUS[status] if held.single else status,
        "single": held.single,
        "phase": outcome.phase if outcome is not None else None,
        "code": code,
        "outcome": outcome,
        "woken": held.woken_at is not None,
        "reason": reason,
        "result": dict(result) if result is not None else None,
        "warnings": warnings,
        "files": dict(files) if files is not None else None,
    }
    _require_one(connection.execute(_FINISH, values).rowcount, held)


def _held(held: Claim) -> dict[str, Any]:
    return {"job_id": held.job_id, "agent_id": held.agent_id, "generation": held.generation}


def _require_one(rows: int, held: Claim) -> None:
    if rows != 1:
        raise LeaseLostError(f"Another worker has taken over agent {held.agent_id} in job {held.job_id}.")
