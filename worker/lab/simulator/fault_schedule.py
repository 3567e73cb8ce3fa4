"""Keeps track of scheduled faults, and of which have happened."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping

from worker.lab.simulator.faults import Fault, Stage


class ScheduledFault:
    """One scheduled fault. Thread-safe."""

    def __init__(self, fault: Fault, told: Callable[[Fault], None]) -> None:
        self.fault = fault
        self._told = told
        self._changed = threading.Condition()
        self._fitted = 0
        self._struck = 0
        self._released = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def __repr__(self) -> str:
        return f"<ScheduledFault {self.fault} happened {self._struck} times>"

    @property
    def happened(self) -> int:
        """The number of requests that the fault has affected so far."""
        with self._changed:
            return self._struck

    @property
    def spent(self) -> bool:
        """Whether the fault has happened as often as it was scheduled to."""
        return self.fault.times is not None and self.happened >= self.fault.times

    def wait(self, timeout_s: float, *, times: int = 1) -> bool:
        """Wait until the fault has happened ``times`` times; false if ``timeout_s`` seconds pass first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._struck >= times, timeout_s)

    def release(self) -> None:
        """Let the held requests continue, and hold no more."""
        with self._changed:
            self._released = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def released(self) -> None:
        """Return once `release` was called."""
        event = asyncio.Event()
        with self._changed:
            if self._released:
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()

    def counts(self) -> bool:
        """Count a matching request; return whether the fault applies to it."""
        with self._changed:
            self._fitted += 1
            times = self.fault.times
            return self._fitted >= self.fault.nth and (times is None or self._struck < times)

    def strike(self) -> None:
        """Record that the fault happens to the request that was counted last."""
        with self._changed:
            self._struck += 1
            self._changed.notify_all()
        self._told(self.fault)


class FaultSchedule:
    """All faults scheduled on one simulator; they outlive its restarts, stops and starts.

    At most one fault happens to a request, the first scheduled of those that are due; the others happen to
    the next matching request.
    """

    def __init__(self, told: Callable[[Fault], None]) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._scheduled: list[ScheduledFault] = []

    def schedule(self, fault: Fault) -> ScheduledFault:
        """Schedule a fault. It counts the requests that arrive from now on."""
        one = ScheduledFault(fault, self._told)
        with self._lock:
            self._scheduled.append(one)
        return one

    def replace(self, faults: list[Fault]) -> None:
        """Replace the schedule by these faults; requests held by the previous ones continue."""
        self.clear()
        for fault in faults:
            self.schedule(fault)

    def clear(self) -> None:
        """Drop the whole schedule, and release the requests that it holds."""
        with self._lock:
            dropped, self._scheduled = self._scheduled, []
        for one in dropped:
            one.release()

    @property
    def outstanding(self) -> list[ScheduledFault]:
        """The scheduled faults that have not happened at all."""
        with self._lock:
            return [one for one in self._scheduled if not one.happened]

    def struck(
        self, stage: Stage, method: str = "", names: Mapping[str, str] | None = None
    ) -> ScheduledFault | None:
        """The fault that happens to this request, if any; counts the request for all faults that match it."""
        with self._lock:
            due = [one for one in self._scheduled if one.fault.fits(stage, method, names or {})]
            due = [one for one in due if one.counts()]
            if not due:
                return None
            due[0].strike()
            return due[0]
