from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import MissionControl, Utc, UuidKey


class Gateway(MissionControl):
    """An OpenClaw gateway. ``token`` is the only table column that holds a plain secret (rules.md 29)."""

    __tablename__ = "gateways"

    id: Mapped[UuidKey]
    organization_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("organizations.id"))
    name: Mapped[str] = mapped_column(String)
    url: Mapped[str] = mapped_column(String)
    token: Mapped[str | None] = mapped_column(String)
    workspace_root: Mapped[str] = mapped_column(String)
    created_at: Mapped[Utc]
    updated_at: Mapped[Utc]
