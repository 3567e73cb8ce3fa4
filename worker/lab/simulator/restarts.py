"""Plans the restarts that a gateway makes on its own (gateways.md 4, measured on 2026.2.12 and 2026.3.13)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from worker.lab.simulator.refusal import JSON
from worker.lab.simulator.release import Release
from worker.lab.simulator.timings import Timings

_LONGEST_S = 60.0
_SAME_S = 0.001
"""Two restarts planned for the same millisecond are one."""


class Restarts:
    """Plans restarts; ``begin`` starts each when it is due.

    2026.2.12 keeps a timer for each patch, and a timer survives the restarts of others. 2026.3.13 has one
    timer: it fires when the cooldown after the last restart and the requested delay are over, an earlier
    request moves it, and any restart clears it. On both, the config watcher restarts the gateway when
    ``channels`` change; it waits for no cooldown, and forgets the change if another restart comes first.
    """

    def __init__(self, release: Release, timings: Timings, begin: Callable[[], None]) -> None:
        self._release = release
        self._timings = timings
        self._begin = begin
        self._patched: set[asyncio.TimerHandle] = set()
        self._watched: asyncio.TimerHandle | None = None
        self._last_began: float | None = None

    def asked(self, delay_ms: int | None) -> JSON:
        """Plan the restart after a config.patch; return the ``restart`` object of its answer.

        ``delay_ms`` is the ``restartDelayMs`` of the request, at most a minute; None: the default.
        """
        delay_s = (
            self._timings.restart_delay_s if delay_ms is None else min(max(delay_ms / 1000, 0), _LONGEST_S)
        )
        answer: JSON = {"ok": True, "pid": os.getpid(), "signal": "SIGUSR1", "delayMs": round(delay_s * 1000)}
        answer |= {"reason": "config.patch", "mode": "emit"}
        if not self._release.spaces_restarts:
            self._set(delay_s)
            return answer
        cooldown_s = self._cooldown_left_s()
        wait_s = delay_s + cooldown_s
        pending = next(iter(self._patched), None)
        coalesced = pending is not None and pending.when() - self._now() <= wait_s + _SAME_S
        if pending is not None and coalesced:
            wait_s = max(0.0, pending.when() - self._now())
        else:
            self._clear_patched()
            self._set(wait_s)
        answer["delayMs"] = round(wait_s * 1000)
        return answer | {"coalesced": coalesced, "cooldownMsApplied": round(cooldown_s * 1000)}

    def watcher_saw_channels(self) -> None:
        """Plan the restart that the config watcher makes because ``channels`` changed."""
        if self._watched is None:
            loop = asyncio.get_running_loop()
            self._watched = loop.call_later(self._timings.reload_delay_s, self._begin)

    def began(self) -> None:
        """Record that a restart has begun, whatever its cause."""
        self._last_began = time.monotonic()
        if self._watched is not None:
            self._watched.cancel()
            self._watched = None
        if self._release.spaces_restarts:
            self._clear_patched()

    def cancel(self) -> None:
        """Forget all timers and the cooldown, because the process ends."""
        self.began()
        self._clear_patched()
        self._last_began = None

    def _set(self, wait_s: float) -> None:
        def ring() -> None:
            self._patched.discard(timer)
            self._begin()

        timer = asyncio.get_running_loop().call_later(wait_s, ring)
        self._patched.add(timer)

    def _clear_patched(self) -> None:
        for timer in self._patched:
            timer.cancel()
        self._patched.clear()

    def _cooldown_left_s(self) -> float:
        if self._last_began is None:
            return 0.0
        return max(0.0, self._last_began + self._timings.restart_cooldown_s - time.monotonic())

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
