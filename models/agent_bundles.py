from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, LargeBinary, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import Moment, Provisioner

REASONS = ("delete", "export", "import", "orphan")


class AgentBundle(Provisioner):
    """What is kept of an agent that was deleted, exported or is to be imported (rules.md 52).

    ``gateway_id``, ``openclaw_id``: where it lived; ``reason``: delete, export, import or orphan; ``whole``:
    its gateway showed its files; ``manifest``: what may be shown of it without opening it, and no content;
    ``body``: a tar, compressed by zlib, and encrypted if ``encrypted``.
    """

    __tablename__ = "agent_bundles"
    __table_args__ = (CheckConstraint(one_of("reason", REASONS), name="reason"),)

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(Uuid, index=True)
    gateway_id: Mapped[UUID | None] = mapped_column(Uuid)
    organization_id: Mapped[UUID | None] = mapped_column(Uuid)
    openclaw_id: Mapped[str | None]
    agent_name: Mapped[str | None]
    reason: Mapped[str]
    job_id: Mapped[UUID | None] = mapped_column(Uuid)
    whole: Mapped[bool]
    encrypted: Mapped[bool]
    manifest: Mapped[dict[str, Any]] = mapped_column(JSONB)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    made_at: Mapped[Moment] = mapped_column(server_default=func.now())
    expires_at: Mapped[Moment] = mapped_column(index=True)
