"""A gateway's share of this process's slots: one that is dead, slow or silent leaves the others theirs.

Kept in memory: what finds no seat waits here and is published again as one comes free. Its row stays as it
is, so nothing is counted, nothing is written, and the clock brings it back should this process die.
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
"""A gateway at which work has been going on for so long gets half as many seats: it may be silent."""


def share_of(slots: int) -> int:
    """How many of a process's slots one gateway may have: 6 of 16. Its sync itself and its roster writer may
    have one more each, and as many as a sync begins at a time are left to others."""
    return max(1, slots * 3 // 8)


@dataclass
class _Table:
    """``seated``: when each that is at work began."""

    seated: dict[int, float] = field(default_factory=dict)
    waiting: OrderedDict[tuple[UUID | None, UUID | None], Message] = field(default_factory=OrderedDict)


class Seats:
    """``most``: slots that one gateway may have at a time. Safe for any number of threads."""

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._lock = threading.Lock()
        self._tables: dict[UUID, _Table] = {}
        self._numbers = 0

    def take(self, gateway_id: UUID, message: Message) -> int | None:
        """Take a seat; None where all are taken: then the message waits for one."""
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
        """Give the seat up; the messages that may have one now are to be published."""
        with self._lock:
            table = self._tables[gateway_id]
            del table.seated[seat]
            free = self._limit(table) - len(table.seated)
            called = [table.waiting.popitem(last=False)[1] for _ in range(min(free, len(table.waiting)))]
            if not table.seated and not table.waiting:
                del self._tables[gateway_id]
            return called

    def crowded(self, gateway_id: UUID) -> bool:
        """Whether others wait for a seat at the gateway."""
        with self._lock:
            table = self._tables.get(gateway_id)
            return table is not None and bool(table.waiting)

    def _limit(self, table: _Table) -> int:
        oldest = min(table.seated.values(), default=None)
        doubtful = oldest is not None and time.monotonic() - oldest > DOUBTFUL_S
        return max(1, self._most // 2) if doubtful else self._most


@contextmanager
def seated(seats: Seats, gateway_id: UUID, message: Message, called: list[Message]) -> Iterator[bool]:
    """A seat at the gateway for the block; False where there is none. ``called`` gets the messages that are
    to be published afterwards."""
    seat = seats.take(gateway_id, message)
    if seat is None:
        yield False
        return
    try:
        yield True
    finally:
        called += seats.leave(gateway_id, seat)
