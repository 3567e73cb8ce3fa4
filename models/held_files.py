from __future__ import annotations

from uuid import UUID

from sqlalchemy import CheckConstraint, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import Moment, Provisioner

HOLD_CAUSES = ("rollback", "roll_out")


class HeldFile(Provisioner):
    """A workspace file that an agent keeps as it was, whatever its templates say now (rules.md 50).

    ``sha256``: the rendering that it keeps, in ``file_texts``; null: no rendering at all, so the file is left
    as it is. ``cause``: a rollback took the agent back to it, or a roll-out has not reached the agent.
    ``job_id``: that job; ``held_by``: who asked for it. ``sources``: the hash of the shipped templates and
    TEMPLATES_DIR at that time, null if the hold does not end with them.
    """

    __tablename__ = "held_files"
    __table_args__ = (CheckConstraint(one_of("cause", HOLD_CAUSES), name="cause"),)

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    gateway_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str | None]
    cause: Mapped[str]
    job_id: Mapped[UUID] = mapped_column(Uuid)
    held_by: Mapped[str | None]
    sources: Mapped[str | None]
    since: Mapped[Moment] = mapped_column(server_default=func.now())
