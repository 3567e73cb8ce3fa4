from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Boolean, DateTime, ForeignKey, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import MissionControl, Utc, UuidKey


class Board(MissionControl):
    """A board of tasks with the goal that its agents work towards."""

    __tablename__ = "boards"

    id: Mapped[UuidKey]
    organization_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("organizations.id"))
    name: Mapped[str] = mapped_column(String)
    slug: Mapped[str] = mapped_column(String)
    gateway_id: Mapped[UUID | None] = mapped_column(Uuid, ForeignKey("gateways.id"))
    board_type: Mapped[str] = mapped_column(String)
    objective: Mapped[str | None] = mapped_column(String)
    success_metrics: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    target_date: Mapped[datetime | None] = mapped_column(DateTime(timezone=False))
    goal_confirmed: Mapped[bool] = mapped_column(Boolean)
    goal_source: Mapped[str | None] = mapped_column(String)
    created_at: Mapped[Utc]
    updated_at: Mapped[Utc]


class BoardMemory(MissionControl):
    """A note or chat message of a board. The newest ``/pause`` or ``/resume`` in the chat says whether the
    board is paused (rules.md 32)."""

    __tablename__ = "board_memory"

    id: Mapped[UuidKey]
    board_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("boards.id"))
    content: Mapped[str] = mapped_column(String)
    tags: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    is_chat: Mapped[bool] = mapped_column(Boolean)
    source: Mapped[str | None] = mapped_column(String)
    created_at: Mapped[Utc]
