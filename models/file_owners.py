from __future__ import annotations

from uuid import UUID

from sqlalchemy import CheckConstraint, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import Moment, Provisioner

OWNER_SCOPES = ("gateway", "board")
FILE_OWNERS = ("ours", "merged", "agent")


class FileOwner(Provisioner):
    """Whose a workspace file is on a gateway or a board, where that differs from the default (rules.md
    47)."""

    __tablename__ = "file_owners"
    __table_args__ = (
        CheckConstraint(one_of("scope", OWNER_SCOPES), name="scope"),
        CheckConstraint(one_of("owner", FILE_OWNERS), name="owner"),
    )

    scope: Mapped[str] = mapped_column(primary_key=True)
    target_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    updated_at: Mapped[Moment] = mapped_column(server_default=func.now())
