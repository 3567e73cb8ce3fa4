"""Schedules of syncs as the CLI shows, adds and removes them; `worker.jobs.schedule_firing` fires them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.jobs.requests import SyncGateway
from worker.jobs.schedule_spec import ScheduleSpec
from worker.jobs.store.webhooks import webhook_of
from worker.printable import readable_json


@dataclass(frozen=True)
class Schedule:
    """A schedule as stored. ``last_status``: the status of the last job that it enqueued."""

    id: UUID
    gateway_id: UUID
    gateway_name: str | None
    spec: ScheduleSpec
    options: Mapping[str, Any]
    enabled: bool
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_job_id: UUID | None
    last_status: str | None
    note: str | None


_ADD = text("""
    INSERT INTO provisioner.sync_schedules (id, gateway_id, every, cron, timezone, options, next_run_at)
    VALUES (:id, :gateway_id, :every, :cron, :timezone, :options, :next_run_at)
""").bindparams(bindparam("options", type_=JSONB))
_NOW = text("SELECT now()")
_LIST = text("""
    SELECT s.id, s.gateway_id, g.name AS gateway_name, extract(epoch FROM s.every)::float AS every_s, s.cron,
        s.timezone, CAST(s.options AS text) AS options, s.enabled,
        CASE WHEN isfinite(s.next_run_at) THEN s.next_run_at END AS next_run_at, s.last_run_at,
        s.last_job_id, j.status AS last_status, s.note
    FROM provisioner.sync_schedules s
    LEFT JOIN gateways g ON g.id = s.gateway_id
    LEFT JOIN provisioner.jobs j ON j.id = s.last_job_id
    ORDER BY g.name, s.next_run_at
""")
_REMOVE = text("DELETE FROM provisioner.sync_schedules WHERE id = :id")


def spec_of(row: Any) -> ScheduleSpec:
    """When the schedule in ``row`` is due, by its columns ``every_s``, ``cron`` and ``timezone``."""
    try:
        every = None if row.every_s is None else timedelta(seconds=row.every_s)
    except OverflowError:  # Postgres counts further than Python
        every = timedelta.max
    return ScheduleSpec(every, row.cron, row.timezone)


def add(connection: Connection, request: SyncGateway, spec: ScheduleSpec) -> Schedule:
    """Store a schedule that enqueues the sync whenever ``spec`` is due. Raises BadRequestError."""
    spec.check()
    webhook_of(connection, request)
    key = uuid4()
    now = connection.execute(_NOW).scalar_one()
    given = {**request.options(), "webhook": request.webhook}
    options = {name: value for name, value in given.items() if value is not None}
    values = {
        "id": key,
        "gateway_id": request.gateway_id,
        "every": spec.every,
        "cron": spec.cron,
        "timezone": spec.timezone,
        "options": options,
        "next_run_at": spec.after(now, key),
    }
    connection.execute(_ADD, values)
    return next(schedule for schedule in all_schedules(connection) if schedule.id == key)


def all_schedules(connection: Connection) -> list[Schedule]:
    """All schedules, ordered by the name of their gateway."""
    return [
        Schedule(
            row.id,
            row.gateway_id,
            row.gateway_name,
            spec_of(row),
            readable_json(row.options) or {},
            row.enabled,
            row.next_run_at,
            row.last_run_at,
            row.last_job_id,
            row.last_status,
            row.note,
        )
        for row in connection.execute(_LIST)
    ]


def remove(connection: Connection, schedule_id: UUID) -> bool:
    """Delete a schedule and return whether there was one. Syncs that it has enqueued are not cancelled."""
    return bool(connection.execute(_REMOVE, {"id": schedule_id}).rowcount)
