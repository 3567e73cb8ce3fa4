"""The limit on config.patch (gateways.md 4)."""

from __future__ import annotations

import math
import time

from worker.lab.simulator.refusal import Refusal


class RateLimit:
    """At most ``limit`` calls per caller in a window of ``window_s`` seconds that begins with its first call.

    The error always says 60 s, as a real gateway's does. Refused calls count, and the windows outlive a
    restart inside the process.
    """

    def __init__(self, method: str, limit: int | None, window_s: float) -> None:
        self._method = method
        self._limit = limit
        self._window_s = window_s
        self._windows: dict[str, tuple[float, int]] = {}

    def count(self, caller: str) -> None:
        """Count one call. Raises `Refusal` with ``retry_after_ms`` if it exceeds the limit."""
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
