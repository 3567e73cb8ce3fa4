"""What the lines of the log are about: the ids of a job, an agent, a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

IDS = ("job", "agent", "gateway")


@contextmanager
def about(**ids: object) -> Iterator[None]:
    """Put ``ids`` on every line of this thread until the end of the block, where all that the block came to
    know by ``note_ids`` goes as well: a slot serves another job next."""
    before = structlog.contextvars.get_contextvars()
    note_ids(**ids)
    try:
        yield
    finally:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**before)


def note_ids(**ids: object) -> None:
    """Put more ``ids`` on the lines of the block that is under way; those that are None are left out."""
    structlog.contextvars.bind_contextvars(
        **{name: str(value) for name, value in ids.items() if value is not None}
    )
