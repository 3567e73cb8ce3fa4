"""Limits each gateway to a share of this process's slots, so that a dead or slow one does not take them all.

A message that finds no seat waits here, in memory, and is published again once a seat is free. Its row is not
changed and no try is counted; if this process dies, the dispatcher publishes the row again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from worker.jobs.messages import Message

DOUBTFUL_S = 3.0
"""Seconds after which a gateway whose oldest work has not finished gets half its seats: it may be silent."""


def share_of(slots: int) -> int:
    """How many of a process's slots one gateway may have: 6 of 16.

    The gateway's sync and its roster writer may each take one more, which leaves other gateways at least as
    many slots as a sync opens rows at a time.
    """
    return max(1, slots * 3 // 8)


@dataclass
class _Table:
    """One gateway's seats. ``seated``: the monotonic time at which each seat was taken; ``waiting``: the
    messages without a seat, by job and agent."""

    seated: dict[int, float] = field(default_factory=dict)
    waiting: OrderedDict[tuple[UUID | None, UUID | None], Message] = field(default_factory=OrderedDict)


class Seats:
    """The seats of all gateways; ``most``: how many slots one gateway may have at a time. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._lock = threading.Lock()
        self._tables: dict[UUID, _Table] = {}
        self._numbers = 0

    def take(self, gateway_id: UUID, message: Message) -> int | None:
        """Take a seat and return its number, or None if all are taken: the message then waits for one."""
        with self._lock:
            table = self._tables.setdefault(gateway_id, _Table())
            if len(table.seated) >= self._limit(table):
                table.waiting[message.job_id, message.agent_id] = message
                return None
            table.waiting.pop((message.job_id, message.agent_id), None)
            self._numbers += 1
            table.seated[self._numbers] = time.monotonic()
            return self._numbers

    def leave(self, gateway_id: UUID, seat: int) -> list[Message]:
        """Give the seat up; return the messages that may have a seat now, which must be published."""
        with self._lock:
            table = self._tables[gateway_id]
            del table.seated[seat]
            free = self._limit(table) - len(table.seated)
            called = [table.waiting.popitem(last=False)[1] for _ in range(min(free, len(table.waiting)))]
            if not table.seated and not table.waiting:
                del self._tables[gateway_id]
            return called

    def crowded(self, gateway_id: UUID) -> bool:
        """Whether messages are waiting for a seat at the gateway."""
        with self._lock:
            table = self._tables.get(gateway_id)
            return table is not None and bool(table.waiting)

    def _limit(self, table: _Table) -> int:
        oldest = min(table.seated.values(), default=None)
        doubtful = oldest is not None and time.monotonic() - oldest > DOUBTFUL_S
        return max(1, self._most // 2) if doubtful else self._most


@contextmanager
def seated(seats: Seats, gateway_id: UUID, message: Message, called: list[Message]) -> Iterator[bool]:
    """Hold a seat at the gateway during the block; yields False if there is none. ``called`` receives the
    messages to publish afterwards."""
    seat = seats.take(gateway_id, message)
    if seat is None:
        yield False
        return
    try:
        yield True
    finally:
        called += seats.leave(gateway_id, seat)
