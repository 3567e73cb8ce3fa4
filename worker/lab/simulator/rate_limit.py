"""The limit on config.patch (gateways.md 4)."""

from __future__ import annotations

import math
import time

from worker.lab.simulator.refusal import Refusal


class RateLimit:
    """At most ``limit`` calls a caller in a window of ``window_s`` that begins with its first call.

    Its words say 60 s, as a real gateway's do, however long the window.

    Refused calls count, and the windows outlive a restart inside the process.
    """

    def __init__(self, method: str, limit: int | None, window_s: float) -> None:
        self._method = method
        self._limit = limit
        self._window_s = window_s
        self._windows: dict[str, tuple[float, int]] = {}

    def count(self, caller: str) -> None:
        """Count one call; `Refusal` with ``retry_after_ms`` where it is one too many."""
        if self._limit is None:
            return
        now = time.monotonic()
        began, calls = self._windows.get(caller, (now, 0))
        if now - began >= self._window_s:
            began, calls = now, 0
        self._windows[caller] = (began, calls + 1)
        if calls < self._limit:
            return
        left_s = self._window_s - (now - began)
        raise Refusal(
            f"rate limit exceeded for {self._method}; retry after {math.ceil(left_s)}s",
            code="UNAVAILABLE",
            details={"method": self._method, "limit": f"{self._limit} per 60s"},
            retry_after_ms=math.ceil(left_s * 1000),
        )
