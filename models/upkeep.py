from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import BinaryJson, Moment, Provisioner


class Upkeep(Provisioner):
    """Work on our own tables that is done at regular times; so far one row, ``prune``
    (`worker.records.upkeep`).

    ``next_run_at``: when a worker may begin it again; ``last_run_at``: when it ended last; ``removed``: how
    many rows it has deleted since the row was made, by kind.
    """

    __tablename__ = "upkeep"

    name: Mapped[str] = mapped_column(primary_key=True)
    next_run_at: Mapped[Moment]
    last_run_at: Mapped[Moment | None]
    removed: Mapped[BinaryJson] = mapped_column(server_default=text("'{}'::jsonb"))
