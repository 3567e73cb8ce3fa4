"""Limits how many calls a connection has in flight: it halves when answers come too late, then grows again.

A gateway answers calls in the order in which it received them, as fast as it can. With too many in flight,
answers take longer than their callers wait, every call is sent again, and nothing gets done. TCP has the same
problem and the remedy used here: additive increase, multiplicative decrease (RFC 5681).
"""

from __future__ import annotations

import threading
import time

LOWEST_LIMIT = 2


class ConcurrencyLimit:
    """A semaphore whose limit follows what the gateway can handle.

    ``highest``: the initial limit, which is never exceeded later.
    """

    def __init__(self, highest: int) -> None:
        self._highest = highest
        self._limit = float(highest)
        self._in_flight = 0
        self._lowered_at = float("-inf")
        self._changed = threading.Condition(threading.Lock())

    @property
    def current(self) -> int:
        """How many calls may be in flight now."""
        return int(self._limit)

    def acquire(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s`` seconds for a permit and take it; False if none became free."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._in_flight < int(self._limit), timeout_s):
                return False
            self._in_flight += 1
            return True

    def release(self) -> None:
        """Free a permit without changing the limit: the call says nothing about the gateway's load."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify()

    def release_answered(self) -> None:
        """Free the permit of a call that was answered in time, and raise the limit by 1/limit."""
        with self._changed:
            self._limit = min(self._highest, self._limit + 1 / self._limit)
            self._in_flight -= 1
            self._changed.notify(2)

    def release_late(self, sent_at: float) -> None:
        """Free the permit of a call that was not answered in time, and halve the limit.

        ``sent_at``: when the call was sent, on the monotonic clock. Calls that were in flight together halve
        the limit once.
        """
        with self._changed:
            if sent_at > self._lowered_at:
                self._limit = min(self._highest, max(LOWEST_LIMIT, self._limit / 2))
                self._lowered_at = time.monotonic()
            self._in_flight -= 1
            self._changed.notify()
