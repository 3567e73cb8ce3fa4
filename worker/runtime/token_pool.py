"""Mints tokens ahead of need: hashing one takes 0.1 s of CPU, which an idle worker can spare.

A plain token is only in this process's memory until a workspace holds it (rules.md 29). It is not reserved
for a particular job, which another process may claim next: any job that this process executes may take it.
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

from worker.workspace.tokens import hash_token, mint_token

MOST_AHEAD = 64
STOCK = 32
"""How many tokens an idle worker has ready for jobs that arrive together: 3 s of CPU, once."""
QUIET_S = 15.0
"""The stock is refilled after this many seconds without a request for a token: earlier, minting would take
CPU from the jobs that it is meant to speed up."""
_NICE = 10


@dataclass(frozen=True)
class NewToken:
    """A token that no agent uses yet, and its hash (rules.md 23)."""

    plain: str
    hash: str

    def __repr__(self) -> str:
        return "<NewToken>"


class TokenPool:
    """Mints tokens ahead of time: one for each call of `expect`, and a stock for jobs that do not call it.

    ``stock``: size of the stock, which is refilled in quiet times; `start` fills it for the first time.
    Thread-safe.
    """

    def __init__(self, stock: int = 0) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._ready: deque[NewToken] = deque()
        self._expected = 0
        self._stock = stock
        self._asked_at = -math.inf
        self._has_thread = False

    def start(self) -> None:
        """Start minting the stock in the background."""
        with self._changed:
            self._ensure_thread()

    def expect(self) -> None:
        """Announce that one more token will be needed soon: mint it in the background, at low priority."""
        with self._changed:
            self._asked_at = time.monotonic()
            self._expected = min(MOST_AHEAD, self._expected + 1)
            self._ensure_thread()

    def take(self) -> NewToken:
        """Return a token that no other caller gets: one minted earlier if there is one, else a new one."""
        with self._changed:
            self._asked_at = time.monotonic()
            self._expected = max(0, self._expected - 1)
            ready = self._ready.popleft() if self._ready else None
            self._ensure_thread()
        return ready or _make()

    def _ensure_thread(self) -> None:
        if self._has_thread:
            self._changed.notify()
        elif len(self._ready) < max(self._expected, self._stock):
            self._has_thread = True
            threading.Thread(target=self._work, name="mint", daemon=True).start()

    def _work(self) -> None:
        if sys.platform == "linux":  # where threads have separate priorities
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while self._await_need():
            minted = _make()
            with self._changed:
                self._ready.append(minted)

    def _await_need(self) -> bool:
        """Wait until another token is needed; False if none is."""
        with self._changed:
            while len(self._ready) >= self._expected:
                if len(self._ready) >= self._stock:
                    self._has_thread = False
                    return False
                busy_s = self._asked_at + QUIET_S - time.monotonic()
                if busy_s <= 0:
                    break
                self._changed.wait(busy_s)
            return True


def _make() -> NewToken:
    token = mint_token()
    return NewToken(token, hash_token(token))
