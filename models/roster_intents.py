from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Identity, Index, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import Moment, Provisioner

CHANGES = ("reconcile", "remove")


class RosterIntent(Provisioner):
    """A job's request to make a gateway's roster match an agent's row, or to remove the agent from the roster
    (decisions.md D1).

    The entry itself is computed when the roster is written, and never stored. ``present_before``: whether the
    roster held the agent before our first write for this intent; ``delete_files``: a removal deletes the
    workspace too; ``only_present``: the agent is not added to a roster that does not hold it. An intent is
    open until ``applied_at`` or ``error`` is set. ``error``: why it was refused, with ``reason_code`` for
    programs (null if a worker before v0.3.0 refused it); ``warning``: is added to the warnings of the job.
    """

    __tablename__ = "roster_intents"
    __table_args__ = (
        CheckConstraint(one_of("change", CHANGES), name="change"),
        Index(
            "roster_intents_open_key",
            "gateway_id",
            "agent_id",
            "job_id",
            "change",
            "openclaw_id",
            unique=True,
            postgresql_where=text("applied_at IS NULL AND error IS NULL"),
        ),
        Index("roster_intents_job_idx", "job_id", "agent_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    gateway_id: Mapped[UUID] = mapped_column(Uuid)
    agent_id: Mapped[UUID] = mapped_column(Uuid)
    job_id: Mapped[UUID] = mapped_column(Uuid)
    change: Mapped[str]
    openclaw_id: Mapped[str]
    delete_files: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    only_present: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    present_before: Mapped[bool | None] = mapped_column(Boolean)
    created_at: Mapped[Moment] = mapped_column(server_default=func.now())
    applied_at: Mapped[Moment | None]
    error: Mapped[str | None]
    warning: Mapped[str | None]
    reason_code: Mapped[str | None]
