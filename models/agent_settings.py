from __future__ import annotations

from uuid import UUID

from sqlalchemy import CheckConstraint, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import BinaryJson, Moment, Provisioner

SETTING_SCOPES = ("gateway", "board", "agent")


class AgentSetting(Provisioner):
    """One field that the roster entries of agents should have, such as ``model`` or ``tools.profile``.

    ``scope`` and ``target_id`` say whose: all agents of a gateway or of a board, or one agent. The nearest
    row wins, unless a wider one is ``locked``. ``field``: the dotted path in the entry; ``value``: never
    null, which config.patch takes for a removal.
    """

    __tablename__ = "agent_settings"
    __table_args__ = (
        CheckConstraint(one_of("scope", SETTING_SCOPES), name="scope"),
        CheckConstraint("jsonb_typeof(value) <> 'null' AND length(value::text) <= 65536", name="value"),
    )

    scope: Mapped[str] = mapped_column(primary_key=True)
    target_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    field: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[BinaryJson]
    locked: Mapped[bool] = mapped_column(server_default=text("false"))
    updated_at: Mapped[Moment] = mapped_column(server_default=func.now())
