from __future__ import annotations

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, UniqueConstraint, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import Moment, Provisioner, UuidKey

DELIVERY_STATUSES = ("pending", "delivered", "failed")


class Webhook(Provisioner):
    """A URL that an organization wants called when its jobs end (decisions.md D17).

    ``name``: the name by which jobs refer to the webhook; ``not_before``: no worker may claim the webhook
    before this time, because another one is sending to it or because a call has just failed; ``failures``:
    how many calls in a row have failed.
    """

    __tablename__ = "webhooks"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)

    id: Mapped[UuidKey]
    organization_id: Mapped[UUID] = mapped_column(Uuid)
    name: Mapped[str]
    url: Mapped[str]
    created_at: Mapped[Moment] = mapped_column(server_default=func.now())
    not_before: Mapped[Moment] = mapped_column(server_default=func.now())
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    last_success_at: Mapped[Moment | None]
    last_failure_at: Mapped[Moment | None]
    last_error: Mapped[str | None]


class WebhookDelivery(Provisioner):
    """The message to a webhook about one job, to be sent once the job has ended.

    ``next_attempt_at``: the earliest time at which it is sent (again), null once it was delivered or given
    up; ``answer``: the HTTP status of the last answer; ``error``: why the last attempt failed.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint(one_of("status", DELIVERY_STATUSES), name="status"),
        Index(
            "webhook_deliveries_due_idx",
            "webhook_id",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
        ),
    )

    job_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("provisioner.jobs.id", ondelete="CASCADE"), primary_key=True
    )
    webhook_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("provisioner.webhooks.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(server_default="pending")
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    next_attempt_at: Mapped[Moment | None] = mapped_column(server_default=func.now())
    answer: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None]
    created_at: Mapped[Moment] = mapped_column(server_default=func.now())
    finished_at: Mapped[Moment | None]
