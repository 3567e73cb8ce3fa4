from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import MissionControl, Utc, UuidKey


class Organization(MissionControl):
    """The owner of gateways, boards and agents."""

    __tablename__ = "organizations"

    id: Mapped[UuidKey]
    name: Mapped[str] = mapped_column(String)
    created_at: Mapped[Utc]
    updated_at: Mapped[Utc]
