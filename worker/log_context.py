"""Adds the ids of the job, agent and gateway concerned to log lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

IDS = ("job", "agent", "gateway")


@contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Put ``ids`` on every log line of this thread until the block ends.

    Ids that were added in the block with `note_ids` are removed at its end too, because the thread serves
    another job next.
    """
    before = structlog.contextvars.get_contextvars()
    note_ids(**ids)
    try:
        yield
    finally:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**before)


def note_ids(**ids: object) -> None:
    """Add ``ids`` to the log lines of the current `log_context` block, except those that are None."""
    structlog.contextvars.bind_contextvars(
        **{name: str(value) for name, value in ids.items() if value is not None}
    )
