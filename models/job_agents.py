from __future__ import annotations

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import BinaryJson, Moment, Provisioner

AGENT_STATUSES = ("pending", "running", "succeeded", "skipped", "failed", "cancelled", "not_attempted")
"""A copy of the statuses in `worker.jobs.states`; a test compares the two."""


class JobAgent(Provisioner):
    """One agent's part in a job. A row in status ``running``, leased or parked, holds the agent: a unique
    index allows one such row per agent (decisions.md D5).

    In a sync, ``position`` is the agent's place in the order, null for the gateway's main agent, which comes
    last; ``roster`` is the planned change to the roster, {"action": create | update | unchanged, "changes":
    a merge patch}; a row whose ``next_attempt_at`` is null has not started.
    ``failing_since``: when the row's current step first failed, null if it has not failed.
    ``reason``: why the row waits, or why it ended without success, with ``reason_code`` for programs;
    ``outcome``: why the agent was skipped, if that is not an error (until the next release, ``phase`` holds
    it too). `worker.jobs.states` lists the values of both; they are null in rows of workers before v0.3.0.
    ``tries``: the number of tries that failed with a transient error, over all steps; ``crashes``: how many
    workers died while they held the row (until the next release, ``attempts`` holds the same number, and
    workers before v0.3.0 write only that).
    """

    __tablename__ = "job_agents"
    __table_args__ = (
        CheckConstraint(one_of("status", AGENT_STATUSES), name="status"),
        Index(
            "job_agents_one_job_an_agent",
            "agent_id",
            unique=True,
            postgresql_where=text("status = 'running'"),
        ),
        Index(
            "job_agents_due_idx", "next_attempt_at", postgresql_where=text("status IN ('pending', 'running')")
        ),
        Index("job_agents_agent_idx", "agent_id", "finished_at"),
    )

    job_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("provisioner.jobs.id", ondelete="CASCADE"), primary_key=True
    )
    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    agent_name: Mapped[str | None]
    board_id: Mapped[UUID | None] = mapped_column(Uuid)
    openclaw_id: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default="pending")
    phase: Mapped[str | None]
    reason: Mapped[str | None]
    warnings: Mapped[BinaryJson] = mapped_column(server_default=text("'[]'::jsonb"))
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    generation: Mapped[int] = mapped_column(Integer, server_default="0")
    lease_until: Mapped[Moment | None]
    next_attempt_at: Mapped[Moment | None]
    published_at: Mapped[Moment | None]
    first_provision: Mapped[bool | None]
    status_before: Mapped[str | None]
    wake_key: Mapped[str | None]
    wake_sent_at: Mapped[Moment | None]
    woken_at: Mapped[Moment | None]
    wake: Mapped[BinaryJson | None]
    files: Mapped[BinaryJson] = mapped_column(server_default=text("'{}'::jsonb"))
    position: Mapped[int | None] = mapped_column(Integer)
    roster: Mapped[BinaryJson | None]
    started_at: Mapped[Moment | None]
    finished_at: Mapped[Moment | None]
    failing_since: Mapped[Moment | None]
    reason_code: Mapped[str | None]
    outcome: Mapped[str | None]
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    crashes: Mapped[int] = mapped_column(Integer, server_default="0")
