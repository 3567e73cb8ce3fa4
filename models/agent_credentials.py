from __future__ import annotations

from uuid import UUID

from sqlalchemy import Uuid
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import Moment, Provisioner, UuidKey


class AgentCredential(Provisioner):
    """The state of an agent's token rotation (rules.md 27).

    ``verified_hash``: the agents.agent_token_hash that the live token last matched; ``pending_hash``: the
    hash of a new token that is being written to the workspace; ``replaces_hash``: the hash of the token that
    it replaces; ``gateway_id``: the gateway on which one of our jobs last succeeded for the agent. These rows
    are not pruned with the jobs (rules.md 16).
    """

    __tablename__ = "agent_credentials"

    agent_id: Mapped[UuidKey]
    verified_hash: Mapped[str | None]
    pending_hash: Mapped[str | None]
    replaces_hash: Mapped[str | None]
    job_id: Mapped[UUID | None] = mapped_column(Uuid)
    gateway_id: Mapped[UUID | None] = mapped_column(Uuid)
    updated_at: Mapped[Moment | None]
