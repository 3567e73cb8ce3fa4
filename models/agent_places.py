from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import Moment, Provisioner


class AgentPlace(Provisioner):
    """Where an agent lives or has lived: one row for each gateway and OpenClaw id assigned to it.

    ``since``: when the place was first written to the gateway; ``until``: when the agent was seen to be gone
    from it, null while it lives there. No two rows without ``until`` share a gateway and an OpenClaw id.
    ``workspace``: the folder that we assigned, null if the gateway has no workspace_root;
    ``resolved_workspace``: that folder as the gateway shows it, with a leading ``~`` replaced, null until the
    gateway has shown it; ``adopted``: the agent was found there, so its id, session key and folder are kept
    as they were (rules.md 48).
    """

    __tablename__ = "agent_places"
    __table_args__ = (
        Index(
            "agent_places_live_key",
            "gateway_id",
            "openclaw_id",
            unique=True,
            postgresql_where=text("until IS NULL"),
        ),
        Index("agent_places_agent_id_idx", "agent_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(Uuid)
    gateway_id: Mapped[UUID] = mapped_column(Uuid)
    openclaw_id: Mapped[str]
    session_key: Mapped[str]
    workspace: Mapped[str | None]
    resolved_workspace: Mapped[str | None]
    adopted: Mapped[bool] = mapped_column(server_default=text("false"))
    since: Mapped[Moment] = mapped_column(server_default=func.now())
    until: Mapped[Moment | None]
