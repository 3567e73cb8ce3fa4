"""How long one waits for a gateway that says nothing at all: until the call's deadline, or less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_patience_s: ContextVar[float | None] = ContextVar("silence_patience_s", default=None)


def patience_s() -> float | None:
    """Seconds of silence after which whoever asks here gives up; None: not before the deadline."""
    return _patience_s.get()


@contextmanager
def impatient(seconds: float) -> Iterator[None]:
    """In this block a call to a gateway ends with GatewaySilent once it has said nothing for ``seconds``,
    whatever the call's own deadline: for work of which there is much, so that a gateway that hangs does not
    hold the slots that others need."""
    token = _patience_s.set(seconds)
    try:
        yield
    finally:
        _patience_s.reset(token)
