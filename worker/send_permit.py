"""Asks, right before each request to a gateway, whether the work that makes it may still act.

A process that was stopped for longer than its lease goes on where it was: by then another worker has the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_permit: ContextVar[Callable[[], None] | None] = ContextVar("send_permit", default=None)


def require_permit() -> None:
    """Raise what the present block's permit raises; outside of blocks nothing is required."""
    permit = _permit.get()
    if permit is not None:
        permit()


@contextmanager
def permitted_by(permit: Callable[[], None]) -> Iterator[None]:
    """Have ``permit`` called before each request of this block; what it raises, the call raises, unsent."""
    token = _permit.set(permit)
    try:
        yield
    finally:
        _permit.reset(token)
