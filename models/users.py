from __future__ import annotations

from uuid import UUID

from sqlalchemy import Boolean, ForeignKey, String, UniqueConstraint, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import MissionControl, Utc, UuidKey


class User(MissionControl):
    """A user of Mission Control. An agent's USER.md describes one of them (rules.md 13)."""

    __tablename__ = "users"

    id: Mapped[UuidKey]
    clerk_user_id: Mapped[str] = mapped_column(String)
    email: Mapped[str | None] = mapped_column(String)
    name: Mapped[str | None] = mapped_column(String)
    preferred_name: Mapped[str | None] = mapped_column(String)
    pronouns: Mapped[str | None] = mapped_column(String)
    timezone: Mapped[str | None] = mapped_column(String)
    notes: Mapped[str | None] = mapped_column(String)
    context: Mapped[str | None] = mapped_column(String)
    is_super_admin: Mapped[bool] = mapped_column(Boolean)
    active_organization_id: Mapped[UUID | None] = mapped_column(Uuid, ForeignKey("organizations.id"))


class OrganizationMember(MissionControl):
    """A user's role in an organization. If a request names no user, the oldest member with the role ``owner``
    is used (rules.md 13)."""

    __tablename__ = "organization_members"
    __table_args__ = (UniqueConstraint("organization_id", "user_id"),)

    id: Mapped[UuidKey]
    organization_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("organizations.id"))
    user_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("users.id"))
    role: Mapped[str] = mapped_column(String)
    all_boards_read: Mapped[bool] = mapped_column(Boolean)
    all_boards_write: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[Utc]
    updated_at: Mapped[Utc]
