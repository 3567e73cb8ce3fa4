from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import BinaryJson, Moment, Provisioner


class RosterField(Provisioner):
    """What we wrote to one field of a roster entry by `AgentSetting`, and what was there before.

    It belongs to the entry, not to an agent, because an id such as a lead's is handed on with its entry.
    ``wrote``: a list of the values that may be ours: the one that is being written, behind the one that it
    replaces; ``had``: the value that the entry's owner had, null if the entry had no such field.
    """

    __tablename__ = "roster_fields"

    gateway_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    openclaw_id: Mapped[str] = mapped_column(primary_key=True)
    field: Mapped[str] = mapped_column(primary_key=True)
    wrote: Mapped[BinaryJson]
    had: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    written_at: Mapped[Moment] = mapped_column(server_default=func.now())
