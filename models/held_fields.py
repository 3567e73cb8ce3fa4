from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import Moment, Provisioner


class HeldField(Provisioner):
    """A field of an agent's roster entry that keeps a value, whatever the agent's rows say now (rules.md 50).

    ``field``: ``name``, ``heartbeat``, or the dotted path of a setting; ``value``: null if no setting counts
    there, so that the field is what the gateway's owner had. ``job_id``: the rollback; ``held_by``: who asked
    for it.
    """

    __tablename__ = "held_fields"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    gateway_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    field: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[Any] = mapped_column(JSONB(none_as_null=True), nullable=True)
    job_id: Mapped[UUID] = mapped_column(Uuid)
    held_by: Mapped[str | None]
    since: Mapped[Moment] = mapped_column(server_default=func.now())
