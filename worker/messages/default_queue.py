"""Moves messages for our tasks out of Celery's default queue, where `send_task` puts them without a queue.

The other messages there belong to other applications and stay, so the queue is not consumed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from worker.worker_row import message_counts

log = logging.getLogger(__name__)

NAME = "celery"
_LOOKED_AT = 100
"""How many entries to examine at each end of the queue: the newest and the oldest."""


def move_to_our_queues(channel: Any, routes: Mapping[str, str]) -> int:
    """Move messages for the tasks of ``routes`` to their queues; returns how many were moved.

    ``channel``: kombu's Redis channel. Two workers at once may move a message twice, which does no harm
    because jobs are rows. Raises RedisError.
    """
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
        message_counts.move(moved)
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
    """The entry with its new queue, to which it returns if its worker dies."""
    message = json.loads(entry)
    if isinstance(message.get("properties"), dict):
        message["properties"]["delivery_info"] = {"exchange": "", "routing_key": queue}
    return json.dumps(message).encode()
