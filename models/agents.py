from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Boolean, DateTime, ForeignKey, String, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import MissionControl, Utc, UuidKey


class Agent(MissionControl):
    """An agent. ``board_id`` is null for a gateway's main agent."""

    __tablename__ = "agents"

    id: Mapped[UuidKey]
    board_id: Mapped[UUID | None] = mapped_column(Uuid, ForeignKey("boards.id"))
    gateway_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("gateways.id"))
    name: Mapped[str] = mapped_column(String)
    status: Mapped[str] = mapped_column(String)
    openclaw_session_id: Mapped[str | None] = mapped_column(String)
    agent_token_hash: Mapped[str | None] = mapped_column(String)
    heartbeat_config: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    identity_profile: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    identity_template: Mapped[str | None] = mapped_column(Text)
    soul_template: Mapped[str | None] = mapped_column(Text)
    provision_requested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=False))
    provision_confirm_token_hash: Mapped[str | None] = mapped_column(String)
    provision_action: Mapped[str | None] = mapped_column(String)
    delete_requested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=False))
    delete_confirm_token_hash: Mapped[str | None] = mapped_column(String)
    last_seen_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=False))
    is_board_lead: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[Utc]
    updated_at: Mapped[Utc]
