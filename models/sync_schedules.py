from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Boolean, CheckConstraint, Index, Interval, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import BinaryJson, Moment, Provisioner, UuidKey


class SyncSchedule(Provisioner):
    """A schedule by which a gateway is synced automatically (decisions.md D9). ``note``: why the last due
    sync was not started, or why the schedule is switched off."""

    __tablename__ = "sync_schedules"
    __table_args__ = (
        CheckConstraint("(every IS NULL) <> (cron IS NULL)", name="every_or_cron"),
        Index("sync_schedules_due_idx", "next_run_at", postgresql_where=text("enabled")),
    )

    id: Mapped[UuidKey]
    gateway_id: Mapped[UUID] = mapped_column(Uuid)
    every: Mapped[timedelta | None] = mapped_column(Interval)
    cron: Mapped[str | None]
    timezone: Mapped[str] = mapped_column(server_default="UTC")
    options: Mapped[BinaryJson] = mapped_column(server_default=text("'{}'::jsonb"))
    enabled: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    next_run_at: Mapped[Moment | None]
    last_run_at: Mapped[Moment | None]
    last_job_id: Mapped[UUID | None] = mapped_column(Uuid)
    note: Mapped[str | None]
