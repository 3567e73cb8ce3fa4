"""Fires due schedules: each due sync is enqueued once, however many beats run (decisions.md D9)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, text

from worker.database import DATABASE_AWAY
from worker.jobs.requests import SCHEDULE, BadRequestError, RollOut, SyncGateway, read_options
from worker.jobs.schedules import spec_of
from worker.jobs.states import ReasonCode
from worker.jobs.store.jobs import RequestConflictError, enqueue
from worker.log_context import log_context, note_ids
from worker.masking.columns import MaskedText

log = logging.getLogger(__name__)

BATCH = 100

_DUE = text("""
    SELECT s.id, s.gateway_id, extract(epoch FROM s.every)::float AS every_s, s.cron, s.timezone,
        CAST(s.options AS text) AS options,
        CASE WHEN isfinite(s.next_run_at) THEN s.next_run_at END AS next_run_at, g.name AS gateway_name,
        now() AS now, j.id AS open_job_id, j.reason_code AS open_job_code, EXISTS (
            SELECT FROM provisioner.roll_outs o JOIN provisioner.jobs r ON r.id = o.job_id
            WHERE s.gateway_id = ANY(o.gateways) AND r.status IN ('queued', 'running')) AS rolling_out
    FROM provisioner.sync_schedules s
    LEFT JOIN gateways g ON g.id = s.gateway_id
    LEFT JOIN provisioner.jobs j ON j.id = s.last_job_id AND j.status IN ('queued', 'running')
        AND j.kind <> 'roll_out'
    WHERE s.enabled AND (s.next_run_at IS NULL OR s.next_run_at <= now())
    ORDER BY s.next_run_at NULLS FIRST LIMIT :batch FOR UPDATE OF s SKIP LOCKED
""")
_NOTE = text("""
    UPDATE provisioner.sync_schedules
    SET next_run_at = :next_run_at, note = :note,
        last_run_at = coalesce(:last_run_at, last_run_at), last_job_id = coalesce(:last_job_id, last_job_id)
    WHERE id = :id
""").bindparams(bindparam("note", type_=MaskedText))
_SWITCH_OFF = text(
    "UPDATE provisioner.sync_schedules SET enabled = false, note = :note WHERE id = :id"
).bindparams(bindparam("note", type_=MaskedText))


def fire_due(engine: Engine) -> int:
    """Enqueue a sync for each schedule that is due by Postgres's clock, and store when it is due next.

    Returns how many syncs were created. A schedule that was due several times since the last call gets one
    sync; one whose last sync is still open gets none. Raises only DATABASE_AWAY: any other error switches off
    the schedule that caused it, and only that one.
    """
    made = 0
    with engine.begin() as connection:
        for row in connection.execute(_DUE, {"batch": BATCH}).all():
            with log_context(gateway=row.gateway_id):
                made += _fire_isolated(connection, row)
    return made


def _fire_isolated(connection: Connection, row: Any) -> bool:
    try:
        with connection.begin_nested():
            return _fire(connection, row)
    except BadRequestError as error:
        log.error("schedule %s is switched off: %s", row.id, error)
        reason = str(error)
    except DATABASE_AWAY:
        raise
    except Exception as error:
        log.exception("schedule %s is switched off by a fault of our own", row.id)
        reason = f"Internal error ({type(error).__name__}): see the worker's log of this schedule."
    connection.execute(_SWITCH_OFF, {"id": row.id, "note": f"Switched off: {reason}"})
    return False


def _fire(connection: Connection, row: Any) -> bool:
    """Enqueue the sync of one due schedule and return whether it was created.

    Raises BadRequestError for an unusable schedule.
    """
    spec = spec_of(row)
    spec.check()
    if row.gateway_name is None:
        raise BadRequestError(f"There is no gateway with gateway_id {row.gateway_id}.")
    request = _request(row)
    next_run_at = spec.after(row.now, row.id)
    if row.next_run_at is None:
        _note(connection, row, next_run_at)
        return False
    if row.open_job_id is not None:
        does = (
            "waits for a sync window" if row.open_job_code == ReasonCode.WAITING_FOR_WINDOW else "still runs"
        )
        note = f"Skipped at {row.now:%Y-%m-%d %H:%M} UTC: job {row.open_job_id} of the last run {does}."
        log.warning("schedule %s of gateway %r: %s", row.id, row.gateway_name, note)
        _note(connection, row, next_run_at, note=note)
        return False
    try:
        job = enqueue(connection, request)
    except RequestConflictError as error:  # its options changed after its sync for this time was enqueued
        _note(connection, row, next_run_at, note=str(error))
        return False
    note_ids(job=job.job_id)
    log.info("schedule %s of gateway %r: a sync is due", row.id, row.gateway_name)
    _note(connection, row, next_run_at, last_run_at=row.now, last_job_id=job.job_id)
    return job.created


def _request(row: Any) -> SyncGateway:
    """What is due: a sync, or a roll-out if the schedule's options have a canary.

    While a roll-out of the gateway is open, such a schedule gets a sync too: it mends what has drifted, and
    gives nobody what the roll-out has not brought.
    """
    due = row.next_run_at.astimezone(UTC).isoformat(timespec="milliseconds") if row.next_run_at else None
    given = read_options(row.options)
    options = given if isinstance(given, Mapping) else {"options": given}
    arguments = {
        **options,
        "gateway_id": row.gateway_id,
        "request_id": f"schedule:{row.id}:{due}",
        "requested_by": SCHEDULE,
    }
    model = RollOut if "canary" in options else SyncGateway
    request, unknown = model.parse(arguments)
    if unknown:
        raise BadRequestError(f"options: tasks.{model.kind} knows no {', '.join(unknown)}.")
    if model is RollOut and row.rolling_out:
        return SyncGateway(**request.model_dump(include=set(SyncGateway.model_fields)))
    return request


def _note(connection: Connection, row: Any, next_run_at: datetime, **columns: Any) -> None:
    values = {"note": None, "last_run_at": None, "last_job_id": None, **columns}
    connection.execute(_NOTE, {**values, "id": row.id, "next_run_at": next_run_at})
