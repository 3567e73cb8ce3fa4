from __future__ import annotations

from uuid import UUID

from sqlalchemy import ARRAY, Boolean, CheckConstraint, ForeignKey, Index, Integer, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import BinaryJson, Moment, Provisioner

ROLL_OUT_STATES = ("waiting", "delivering", "delivered", "healthy", "unknown", "failed", "gone")
"""A copy of `worker.jobs.states.RolloutState`; a test compares the two."""


class RollOut(Provisioner):
    """Where a roll-out stands, beside the row of its job (rules.md 56).

    ``gateways``: those that it is about; ``ring``: the ring that is under way, of ``rings``, 0 before the
    plan is made; ``children``: the syncs that it waits for now; ``plan``: whom the first ring leaves out, how
    often gateways restart, and warnings; ``wait_until``: when those agents of the ring that nothing was heard
    of count as unknown; ``paused_at``: no further ring begins until it is null again; ``templates_at``:
    promotions after this moment pause it, since the rings before have not tried them.
    """

    __tablename__ = "roll_outs"
    __table_args__ = (Index("roll_outs_gateways_idx", "gateways", postgresql_using="gin"),)

    job_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("provisioner.jobs.id", ondelete="CASCADE"), primary_key=True
    )
    gateways: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    ring: Mapped[int] = mapped_column(Integer, server_default="0")
    rings: Mapped[int] = mapped_column(Integer, server_default="0")
    children: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default=text("'{}'::uuid[]"))
    plan: Mapped[BinaryJson] = mapped_column(server_default=text("'{}'::jsonb"))
    wait_until: Mapped[Moment | None]
    paused_at: Mapped[Moment | None]
    templates_at: Mapped[Moment] = mapped_column(server_default=func.now())


class RollOutAgent(Provisioner):
    """One agent's part in a roll-out. ``change``: the same for agents whose files and entries change alike;
    ``entry``: its roster entry changes too, and ``former`` is what was found there by field;
    ``reached_at``: when its new files were delivered;
    ``verified_at``: when its files and token were read back; ``probed_at``: when it was sent a message to see
    it run; ``reason``: why it failed, or is unknown."""

    __tablename__ = "roll_out_agents"
    __table_args__ = (
        CheckConstraint(one_of("state", ROLL_OUT_STATES), name="state"),
        Index("roll_out_agents_ring_idx", "job_id", "ring"),
    )

    job_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("provisioner.roll_outs.job_id", ondelete="CASCADE"), primary_key=True
    )
    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    gateway_id: Mapped[UUID] = mapped_column(Uuid)
    agent_name: Mapped[str | None]
    is_main: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    ring: Mapped[int] = mapped_column(Integer)
    change: Mapped[str]
    entry: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    former: Mapped[BinaryJson] = mapped_column(server_default=text("'{}'::jsonb"))
    state: Mapped[str] = mapped_column(server_default="waiting")
    reached_at: Mapped[Moment | None]
    verified_at: Mapped[Moment | None]
    probed_at: Mapped[Moment | None]
    reason: Mapped[str | None]
