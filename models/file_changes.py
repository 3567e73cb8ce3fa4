from __future__ import annotations

from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import Moment, Provisioner

UNKEPT_REASONS = ("secret", "long", "not_text")


class FileChange(Provisioner):
    """What a job replaced in a workspace file, noted before it was written (rules.md 51).

    ``former_sha256``: the rendering that was on record, null if there was none; ``written_sha256``: the one
    that replaced it. ``text_sha256``: what stood in the file, if it was not that rendering, with the
    placeholder in place of the token. All three name rows of ``file_texts``. ``unkept``: why that text was
    not kept.
    """

    __tablename__ = "file_changes"
    __table_args__ = (
        CheckConstraint(one_of("unkept", UNKEPT_REASONS), name="unkept"),
        Index("file_changes_agent_idx", "agent_id", "changed_at"),
        Index("file_changes_changed_at_idx", "changed_at"),
    )

    job_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    gateway_id: Mapped[UUID] = mapped_column(Uuid)
    former_sha256: Mapped[str | None]
    written_sha256: Mapped[str]
    text_sha256: Mapped[str | None]
    unkept: Mapped[str | None]
    changed_at: Mapped[Moment] = mapped_column(server_default=func.now())
