"""How many calls a connection has in flight: fewer once answers come too late, then slowly more again.

A gateway answers in the order of asking, as fast as it can. Where so much is in flight that an answer takes
longer than its caller waits, everything is asked again and nothing gets done; TCP's remedy for the same
(additive increase, multiplicative decrease: RFC 5681) is the remedy here.
"""

from __future__ import annotations

import threading
import time

FEWEST = 2


class Window:
    """A semaphore whose size follows what the other side can take; ``most``: its size at first, its limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(most)
        self._taken = 0
        self._narrowed_at = float("-inf")
        self._free = threading.Condition(threading.Lock())

    @property
    def size(self) -> int:
        """How many may be in flight now."""
        return int(self._size)

    def take(self, timeout_s: float) -> bool:
        """Take a place, waiting at most ``timeout_s`` seconds; False where none came free."""
        with self._free:
            if not self._free.wait_for(lambda: self._taken < int(self._size), timeout_s):
                return False
            self._taken += 1
            return True

    def give_back(self) -> None:
        """Free a place that says nothing about the other side."""
        with self._free:
            self._taken -= 1
            self._free.notify()

    def answered(self) -> None:
        """Free the place of a call that was answered in time: once all in flight were, one more may be."""
        with self._free:
            self._size = min(self._most, self._size + 1 / self._size)
            self._taken -= 1
            self._free.notify(2)

    def late(self, sent_at: float) -> None:
        """Free the place of a call that was not answered in time. ``sent_at``: when it was sent, on the
        monotonic clock; all that were in flight together halve the window once."""
        with self._free:
            if sent_at > self._narrowed_at:
                self._size = min(self._most, max(FEWEST, self._size / 2))
                self._narrowed_at = time.monotonic()
            self._taken -= 1
            self._free.notify()
