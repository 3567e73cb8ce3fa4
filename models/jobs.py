from __future__ import annotations

from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Integer, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import BinaryJson, Moment, Provisioner, UuidKey

JOB_STATUSES = ("queued", "running", "succeeded", "partial", "failed", "cancelled")
"""A copy of the statuses in `worker.jobs.states`; a test compares the two."""


def one_of(column: str, values: tuple[str, ...]) -> str:
    """The SQL of a CHECK that ``column`` is one of ``values``; such columns are text, not enums."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Job(Provisioner):
    """A request and its outcome. Inserting a row in status ``queued`` enqueues the job (decisions.md D8).

    ``next_attempt_at``: when the dispatcher publishes the row (again), null once the job has ended;
    ``lease_until``: set while a worker holds the row; ``published_at``: set from publication to claim, so
    that a late copy of the message finds nothing to do. ``kind`` may be any name: `worker.jobs.kinds` lists
    the known ones, and a newer worker may know more. ``finished_at`` is set to now() by the transaction that
    ends the job, which is how the table's triggers find the jobs to notify about (decisions.md D17).

    ``error``: why the job ended without success, with ``reason_code`` for programs; ``wait_reason``: why a
    running sync waits (until the next release, ``error`` holds it too). Codes are null in rows of workers
    before v0.3.0. ``tries``, ``crashes``: as in `models.job_agents`, for jobs whose own row is claimed, such
    as syncs. ``webhook``: the name of the webhook that is called when the job ends. ``compared_to``: the
    position of the last agent that a sync has compared with what is on record of it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("kind ~ '^[a-z][a-z0-9_]{0,62}$'", name="kind_form"),
        CheckConstraint(one_of("status", JOB_STATUSES), name="status"),
        Index(
            "jobs_request_key",
            "request_id",
            "kind",
            text("coalesce(agent_id, board_id, gateway_id)"),
            unique=True,
            postgresql_where=text("request_id IS NOT NULL"),
        ),
        Index("jobs_due_idx", "next_attempt_at", postgresql_where=text("status IN ('queued', 'running')")),
        Index("jobs_created_idx", "created_at"),
        Index("jobs_gateway_idx", "gateway_id", "created_at"),
        Index("jobs_agent_idx", "agent_id", "created_at"),
        Index(
            "jobs_finished_idx",
            "finished_at",
            "id",
            postgresql_where=text("status NOT IN ('queued', 'running')"),
        ),
        Index(
            "jobs_one_sync_a_gateway",
            "gateway_id",
            unique=True,
            postgresql_where=text("kind = 'sync_gateway' AND status = 'running'"),
        ),
    )

    id: Mapped[UuidKey]
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="queued")
    phase: Mapped[str | None]
    request_id: Mapped[str | None]
    requested_by: Mapped[str | None]
    organization_id: Mapped[UUID | None] = mapped_column(Uuid)
    gateway_id: Mapped[UUID | None] = mapped_column(Uuid)
    board_id: Mapped[UUID | None] = mapped_column(Uuid)
    agent_id: Mapped[UUID | None] = mapped_column(Uuid)
    parent_job_id: Mapped[UUID | None] = mapped_column(Uuid)
    options: Mapped[BinaryJson] = mapped_column(server_default=text("'{}'::jsonb"))
    result: Mapped[BinaryJson | None]
    warnings: Mapped[BinaryJson] = mapped_column(server_default=text("'[]'::jsonb"))
    error: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    generation: Mapped[int] = mapped_column(Integer, server_default="0")
    lease_until: Mapped[Moment | None]
    next_attempt_at: Mapped[Moment | None] = mapped_column(server_default=func.now())
    published_at: Mapped[Moment | None]
    cancel_requested_at: Mapped[Moment | None]
    agents_total: Mapped[int] = mapped_column(Integer, server_default="0")
    agents_done: Mapped[int] = mapped_column(Integer, server_default="0")
    created_at: Mapped[Moment] = mapped_column(server_default=func.now())
    updated_at: Mapped[Moment] = mapped_column(server_default=func.now())
    started_at: Mapped[Moment | None]
    finished_at: Mapped[Moment | None]
    failing_since: Mapped[Moment | None]
    reason_code: Mapped[str | None]
    wait_reason: Mapped[str | None]
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    crashes: Mapped[int] = mapped_column(Integer, server_default="0")
    webhook: Mapped[str | None]
    compared_to: Mapped[int | None]
