from __future__ import annotations

from sqlalchemy import BigInteger, Double, Integer, func
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import Moment, Provisioner


class Worker(Provisioner):
    """A worker process: its last sign of life, and its counts since it started.

    ``seen_at``: when it last wrote this row, which is how it finds out whether the database accepts writes;
    ``pauses``: how many times it stopped consuming messages because the database did not serve it;
    ``paused_s``: for how many seconds in all; ``last_pause``: the reason for the latest pause;
    ``messages_dropped``: how many messages could not be read; ``messages_moved``: how many were found in
    Celery's default queue and moved to ours; ``revision``: the schema revision that the worker needs, null of
    a worker before 0020.
    """

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[Moment] = mapped_column(server_default=func.now())
    seen_at: Mapped[Moment] = mapped_column(server_default=func.now())
    pauses: Mapped[int] = mapped_column(Integer, server_default="0")
    paused_s: Mapped[float] = mapped_column(Double, server_default="0")
    last_pause: Mapped[str | None]
    last_pause_at: Mapped[Moment | None]
    messages_dropped: Mapped[int] = mapped_column(BigInteger, server_default="0")
    messages_moved: Mapped[int] = mapped_column(BigInteger, server_default="0")
    revision: Mapped[str | None]
