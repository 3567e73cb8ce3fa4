"""Messages for us in Celery's own default queue, where `send_task` without a queue puts them.

They are moved to the queues that we read. The others there are somebody else's, and stay: so the queue is not
consumed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from worker.presence import tally

log = logging.getLogger(__name__)

NAME = "celery"
_LOOKED_AT = 100
"""Entries at either end: the newest, and the oldest."""


def move_to_our_queues(channel: Any, routes: Mapping[str, str]) -> int:
    """Move what is for the tasks of ``routes`` to their queues, by kombu's Redis ``channel``; how many were
    moved. Two workers at once may move one twice, which a job's row stands. Raises RedisError."""
    moved = 0
    with channel.conn_or_acquire() as client:
        keys = [channel._q_for_pri(NAME, step) for step in channel.priority_steps]
        lengths = client.pipeline(transaction=False)
        for key in keys:
            lengths.llen(key)
        for key, length in zip(keys, lengths.execute(), strict=True):
            for entry, task in _ours(client, key, routes) if length else ():
                move = client.pipeline(transaction=True)
                move.lrem(key, 1, entry).lpush(routes[task], _with_queue(entry, routes[task]))
                removed, _ = move.execute()
                moved += removed
    if moved:
        tally.move(moved)
        log.warning("moved %d messages from queue %r to ours: name the queue in send_task", moved, NAME)
    return moved


def _ours(client: Any, key: str, routes: Mapping[str, str]) -> Iterator[tuple[bytes, str]]:
    entries = dict.fromkeys([*client.lrange(key, -_LOOKED_AT, -1), *client.lrange(key, 0, _LOOKED_AT - 1)])
    for entry in entries:
        try:
            task = json.loads(entry)["headers"]["task"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if isinstance(task, str) and task in routes:
            yield entry, task


def _with_queue(entry: bytes, queue: str) -> bytes:
    """The entry with the queue where it goes on: it comes back there if its worker dies."""
    message = json.loads(entry)
    if isinstance(message.get("properties"), dict):
        message["properties"]["delivery_info"] = {"exchange": "", "routing_key": queue}
    return json.dumps(message).encode()
