from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Boolean, CheckConstraint, Index, Interval, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import Moment, Provisioner, UuidKey


class SyncWindow(Provisioner):
    """A time that returns, in which changes that restart a gateway or wake its agents may happen
    (``effect`` allow) or may not (deny): `worker.jobs.sync_windows`, rules.md 55.

    ``duration``: how long it lasts from each time at which ``cron`` fires in ``timezone``; ``everything``: it
    also counts for deletes, first provisions and rotations that somebody asked for.
    """

    __tablename__ = "sync_windows"
    __table_args__ = (
        CheckConstraint("effect IN ('allow', 'deny')", name="effect"),
        Index("sync_windows_gateway_idx", "gateway_id"),
    )

    id: Mapped[UuidKey]
    gateway_id: Mapped[UUID] = mapped_column(Uuid)
    effect: Mapped[str]
    cron: Mapped[str]
    duration: Mapped[timedelta] = mapped_column(Interval)
    timezone: Mapped[str] = mapped_column(server_default="UTC")
    everything: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    created_at: Mapped[Moment] = mapped_column(server_default=func.now())
