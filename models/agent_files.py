from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Integer, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import Moment, Provisioner

FILE_KINDS = ("file", "section", "scratch")


class AgentFile(Provisioner):
    """What we last wrote to one workspace file (decisions.md D2).

    ``source_sha256``: SHA-256, in hex, of the text with a placeholder in place of the token; ``size`` (bytes)
    and ``updated_at_ms``: as the gateway reported them; ``locator``: where the text is stored if not in a
    file of that name (for a scratch, the id of the heartbeat automation); ``mixed``: the file then also held
    text of the agent's, so that it was not that rendering.
    """

    __tablename__ = "agent_files"
    __table_args__ = (CheckConstraint(one_of("kind", FILE_KINDS), name="kind"),)

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    gateway_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    source_sha256: Mapped[str]
    size: Mapped[int] = mapped_column(Integer)
    updated_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    locator: Mapped[str | None]
    mixed: Mapped[bool] = mapped_column(server_default=text("false"))
    job_id: Mapped[UUID | None] = mapped_column(Uuid)
    applied_at: Mapped[Moment] = mapped_column(server_default=func.now())
