from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Index, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import Moment, Provisioner


class EntryChange(Provisioner):
    """What a job replaced in an agent's roster entry, noted before it was written (rules.md 51).

    ``fields``: the former values of the fields that it changed, null for one that was not there; ``unkept``:
    the fields whose values were not kept, since they hold a secret or a variable.
    """

    __tablename__ = "entry_changes"
    __table_args__ = (
        Index("entry_changes_agent_idx", "agent_id", "changed_at"),
        Index("entry_changes_changed_at_idx", "changed_at"),
    )

    job_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    gateway_id: Mapped[UUID] = mapped_column(Uuid)
    fields: Mapped[Any] = mapped_column(JSONB)
    unkept: Mapped[Any] = mapped_column(JSONB, server_default=text("'[]'"))
    changed_at: Mapped[Moment] = mapped_column(server_default=func.now())
