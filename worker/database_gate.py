"""The database gate: while it is closed, this process takes no work and publishes nothing.

Any thread that gets a "not now" error (`worker.database_errors`) closes it, unless the error concerns one
statement only, such as one for a locked row. Only the dispatcher opens it, once a test write succeeds, which
it tries at most once a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from worker.database import DATABASE_AWAY
from worker.database_errors import of_one_statement

log = logging.getLogger(__name__)

PROBE_EVERY_S = 1.0
LONGEST_HOLD_S = 8.0
"""Limit on the seconds from closing the gate to the first probe.

They double each time the gate is closed right after it opened, as statements then fail although the probe
succeeds.
"""
_AT_ONCE_S = 5.0


@dataclass(frozen=True)
class Pause:
    """A period during which the gate is closed.

    ``closed_by``: the sentence of the latest error that closed it. ``began``: when it was first closed, on
    the monotonic clock.
    """

    closed_by: str
    began: float


class DatabaseGate:
    """Whether this process may work: open, or closed with the reason. Any thread may close it.

    ``pauses``, ``paused_s`` and ``last_pause``: the number of pauses since the process started, their total
    length in seconds, and the sentence of the latest.
    """

    def __init__(self, time_of: Callable[[], float] = time.monotonic) -> None:
        self._time_of = time_of
        self._lock = threading.Lock()
        self._pause: Pause | None = None
        self._probe_at = 0.0
        self._hold_s = PROBE_EVERY_S
        self._opened_at = float("-inf")
        self._listeners: list[Callable[[], None]] = []
        self.pauses = 0
        self.paused_s = 0.0
        self.last_pause: str | None = None

    @property
    def closed_by(self) -> str | None:
        """The sentence of the error that closed the gate; None while it is open."""
        pause = self._pause
        return pause.closed_by if pause is not None else None

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` each time the gate has been closed or opened, in the thread that did it."""
        self._listeners.append(listener)

    def close(self, error: BaseException, *, by_probe: bool = False) -> None:
        """Close the gate, because the database said "not now".

        An error that concerns one statement only does not close it, unless ``by_probe``: no other code
        touches the probe's row, so if that row is locked, the database serves no worker.
        """
        if of_one_statement(error) and not by_probe:
            log.info("one statement was not served, and is tried again: %s", sentence(error))
            return
        closed_by = sentence(error)
        with self._lock:
            now = self._time_of()
            before, self._pause = self._pause, Pause(closed_by, self._pause.began if self._pause else now)
            if before is None:
                again = now - self._opened_at < _AT_ONCE_S
                self._hold_s = min(LONGEST_HOLD_S, self._hold_s * 2) if again else PROBE_EVERY_S
                self._probe_at = now + self._hold_s
                self.pauses += 1
            self.last_pause = closed_by
        if before is None:
            log.warning("no work is taken until the database serves us: %s", closed_by)
            self._notify()
        elif before.closed_by != closed_by:
            log.info("the database does not serve us yet: %s", closed_by)

    def try_to_open(self, probe: Callable[[], None]) -> bool:
        """Call ``probe`` if the gate is closed and a probe is due. Returns whether the gate is open.

        A "not now" error of the probe keeps the gate closed and is not raised.
        """
        with self._lock:
            now = self._time_of()
            if self._pause is None:
                return True
            if now < self._probe_at:
                return False
            self._probe_at = now + PROBE_EVERY_S
        try:
            probe()
        except DATABASE_AWAY as error:
            self.close(error, by_probe=True)
            return False
        with self._lock:
            pause, self._pause = self._pause, None
            self._opened_at = self._time_of()
            lasted_s = self._opened_at - pause.began if pause else 0.0
            self.paused_s += lasted_s
        log.info("the database serves us again after %.1f s: work is taken", lasted_s)
        self._notify()
        return True

    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def sentence(error: BaseException) -> str:
    """The error's message on one line, or its type if it has none."""
    message = " ".join(str(error).split())
    return message or type(error).__name__


gate = DatabaseGate()
"""The gate of this process."""
