"""Tokens made ahead: hashing one takes 0.1 s of CPU, and a worker that is idle, or whose jobs wait for the
roster, has that time.

A plain token is in this process's memory alone until it stands in a workspace (rules.md 29), so it is not
kept for a certain job, whose next turn may be another process's: any turn of this one takes it, once.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass

from worker.workspace.credentials import hash_token, mint_token

MOST_AHEAD = 64
KEPT = 32
"""So many a worker has ready before anybody asks, for whoever comes first of many: 3 s of CPU, once."""
QUIET_S = 15.0
"""Those are made up for once nobody has asked for any for so long: sooner, they would take the time of the
very jobs that they are to save time for."""
_NICE = 10


@dataclass(frozen=True)
class Minted:
    """A token that is nobody's yet, and its hash (rules.md 23)."""

    plain: str
    hash: str

    def __repr__(self) -> str:
        return "<Minted>"


class Mint:
    """Makes tokens, ahead of time where it was told to expect that they will be asked for, and keeps some
    for those whom nobody expects. Safe for any number of threads.

    ``kept``: how many it is to have ready whenever all is quiet; `begin` has the first of them made.
    """

    def __init__(self, kept: int = 0) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._ready: deque[Minted] = deque()
        self._expected = 0
        self._kept = kept
        self._asked_at = -math.inf
        self._at_work = False

    def begin(self) -> None:
        """Make those that are kept."""
        with self._changed:
            self._set_to_work()

    def expect(self) -> None:
        """Say that one more token will be wanted soon; it is made in the background, at low priority."""
        with self._changed:
            self._asked_at = time.monotonic()
            self._expected = min(MOST_AHEAD, self._expected + 1)
            self._set_to_work()

    def take(self) -> Minted:
        """A token that nobody else gets: one made ahead, or one made now."""
        with self._changed:
            self._asked_at = time.monotonic()
            self._expected = max(0, self._expected - 1)
            ready = self._ready.popleft() if self._ready else None
            self._set_to_work()
        return ready or _make()

    def _set_to_work(self) -> None:
        if self._at_work:
            self._changed.notify()
        elif len(self._ready) < max(self._expected, self._kept):
            self._at_work = True
            threading.Thread(target=self._work, name="mint", daemon=True).start()

    def _work(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while self._go_on():
            minted = _make()
            with self._changed:
                self._ready.append(minted)

    def _go_on(self) -> bool:
        """Wait until another is to be made; False where all are there."""
        with self._changed:
            while len(self._ready) >= self._expected:
                if len(self._ready) >= self._kept:
                    self._at_work = False
                    return False
                busy_s = self._asked_at + QUIET_S - time.monotonic()
                if busy_s <= 0:
                    break
                self._changed.wait(busy_s)
            return True


def _make() -> Minted:
    token = mint_token()
    return Minted(token, hash_token(token))
