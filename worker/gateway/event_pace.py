"""Limits how many events a connection's reading thread takes in a second, so that a gateway that floods us
with them slows itself and no other one: reading takes Python's global lock, and the rest waits in TCP."""

from __future__ import annotations

EVENTS_A_SECOND = 400.0
"""A busy gateway with fifty agents that all answer at once sends a quarter of that."""
BURST = 1000.0
"""How many events may come at once before the limit counts."""


class EventPace:
    """A token bucket: each event takes a token, and EVENTS_A_SECOND come back each second."""

    def __init__(self, now: float) -> None:
        self._tokens = BURST
        self._at = now

    def pause_s(self, now: float) -> float:
        """Count an event that has come at ``now``, on the monotonic clock; returns for how many seconds to
        read nothing."""
        self._tokens = min(BURST, self._tokens + (now - self._at) * EVENTS_A_SECOND) - 1.0
        self._at = now
        return 0.0 if self._tokens >= 0 else -self._tokens / EVENTS_A_SECOND
