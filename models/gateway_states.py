from __future__ import annotations

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import BinaryJson, Moment, Provisioner, UuidKey


class GatewayState(Provisioner):
    """What all workers must know about one gateway: who may write its roster, and whether it is up.

    ``writer_queued_at``: when the last message for the roster writer was sent, null once a worker has started
    it; while this is set, no job sends another. ``writer_not_before``: when the writer must be called again,
    after a failure or for a later restart; ``down_at``: fingerprint of the address at which the outage began;
    ``allowed_rewrites``: what the gateway's owner allows us to rewrite in its config files
    (`provisioner gateway allow-rewrite`).
    """

    __tablename__ = "gateway_states"

    gateway_id: Mapped[UuidKey]
    writer_owner: Mapped[str | None]
    writer_generation: Mapped[int] = mapped_column(Integer, server_default="0")
    writer_until: Mapped[Moment | None]
    writer_queued_at: Mapped[Moment | None]
    writer_not_before: Mapped[Moment | None]
    rate_limited_until: Mapped[Moment | None]
    restart_expected_at: Mapped[Moment | None]
    down_since: Mapped[Moment | None]
    last_failure_at: Mapped[Moment | None]
    probe_until: Mapped[Moment | None]
    refused_token_fingerprint: Mapped[str | None]
    dialect: Mapped[BinaryJson | None]
    last_error: Mapped[str | None]
    allowed_rewrites: Mapped[BinaryJson | None]
    down_at: Mapped[str | None]
