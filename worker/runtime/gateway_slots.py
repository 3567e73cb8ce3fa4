"""Limits each gateway to a share of this process's slots, so that a dead or slow one does not take them all.

A message that finds no slot waits here, in memory, and is published again once a slot is free. Its row is not
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
"""Once a gateway has held a slot for this many seconds, it gets only half its slots: it may be hanging."""


MOST_PER_GATEWAY = 6
"""How many slots one gateway may have at a time: as many as a sync opens rows (decisions.md D7)."""


def slots_per_gateway(slots: int) -> int:
    """How many of a process's slots one gateway may have; fewer than MOST_PER_GATEWAY if the process has so
    few that others would get none. The gateway's sync and its roster writer may each take one more."""
    return max(1, min(MOST_PER_GATEWAY, slots * 3 // 8))


@dataclass
class _Gateway:
    """One gateway's slots. ``taken``: the monotonic time at which each slot was taken; ``waiting``: the
    messages without a slot, by job and agent."""

    taken: dict[int, float] = field(default_factory=dict)
    waiting: OrderedDict[tuple[UUID | None, UUID | None], Message] = field(default_factory=OrderedDict)


class GatewaySlots:
    """The slots of all gateways. Thread-safe.

    ``most``: how many slots one gateway may have at a time; ``total``: how many the process has. A gateway
    that has some gets another one only while more than those are free, so that however many gateways hang,
    one that comes later finds a few.
    """

    def __init__(self, most: int, total: int | None = None) -> None:
        self._most = max(1, most)
        self._total = total
        self._lock = threading.Lock()
        self._gateways: dict[UUID, _Gateway] = {}
        self._numbers = 0

    def acquire(self, gateway_id: UUID, message: Message) -> int | None:
        """Take a slot and return its number. If all are taken, keep the message waiting and return None."""
        with self._lock:
            gateway = self._gateways.setdefault(gateway_id, _Gateway())
            if len(gateway.taken) >= self._limit(gateway):
                gateway.waiting[message.job_id, message.agent_id] = message
                return None
            gateway.waiting.pop((message.job_id, message.agent_id), None)
            self._numbers += 1
            gateway.taken[self._numbers] = time.monotonic()
            return self._numbers

    def release(self, gateway_id: UUID, slot: int) -> list[Message]:
        """Release the slot; return the messages that can have one now, for the caller to publish."""
        with self._lock:
            gateway = self._gateways[gateway_id]
            del gateway.taken[slot]
            free = self._limit(gateway) - len(gateway.taken)
            released = [
                gateway.waiting.popitem(last=False)[1] for _ in range(min(free, len(gateway.waiting)))
            ]
            if not gateway.taken and not gateway.waiting:
                del self._gateways[gateway_id]
            return released

    def has_waiting(self, gateway_id: UUID) -> bool:
        """Whether messages are waiting for a slot at the gateway."""
        with self._lock:
            gateway = self._gateways.get(gateway_id)
            return gateway is not None and bool(gateway.waiting)

    def _limit(self, gateway: _Gateway) -> int:
        oldest = min(gateway.taken.values(), default=None)
        doubtful = oldest is not None and time.monotonic() - oldest > DOUBTFUL_S
        share = max(1, self._most // 2) if doubtful else self._most
        if self._total is None or len(gateway.taken) < self._free():
            return share
        return max(1, min(share, len(gateway.taken)))

    def _free(self) -> int:
        assert self._total is not None
        return self._total - sum(len(each.taken) for each in self._gateways.values())


@contextmanager
def held_slot(
    slots: GatewaySlots, gateway_id: UUID, message: Message, released: list[Message]
) -> Iterator[bool]:
    """Hold one of the gateway's slots during the block, and yield True. If all are taken, keep the message
    waiting and yield False. ``released`` receives the messages to publish after the block."""
    slot = slots.acquire(gateway_id, message)
    if slot is None:
        yield False
        return
    try:
        yield True
    finally:
        released += slots.release(gateway_id, slot)
