from __future__ import annotations

from uuid import UUID

from sqlalchemy import Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import BinaryJson, Moment, Provisioner


class AgentDrift(Provisioner):
    """An agent that differed from its templates or settings when a dry run last looked (rules.md 54).

    ``since``: when a dry run first found a difference that no job has removed; ``seen_at``: when one last
    did; ``job_id``: that dry run; ``differs``: what differs (`worker.records.drift`).
    """

    __tablename__ = "agent_drift"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    gateway_id: Mapped[UUID] = mapped_column(Uuid)
    since: Mapped[Moment] = mapped_column(server_default=func.now())
    seen_at: Mapped[Moment] = mapped_column(server_default=func.now())
    job_id: Mapped[UUID] = mapped_column(Uuid)
    differs: Mapped[BinaryJson]
