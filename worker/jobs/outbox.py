"""Publishes what is due: queued jobs, parked and abandoned rows, roster writes (decisions.md D8).

Rows are marked, the mark is committed, and then the messages go out: a message that came before the commit
would find nothing to claim. Where the broker is away the marks are taken back, so that the next tick tries
again; where the process dies in between, LOST_AFTER_S and REPUBLISH_AFTER_S do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError
from sqlalchemy import Engine

from worker.jobs.messages import Message
from worker.jobs.store.publishing import mark_due, unmark

Send = Callable[[str, Mapping[str, Any], str | None], None]
"""``send(task name, kwargs, task id)``; raises where the broker cannot be reached."""

PUBLISH_ERRORS = (BrokerError, RedisError, OSError, RuntimeError)
"""What a publisher may raise where the broker is away (celery.md 0.4)."""
BATCH = 100


def publish_due(engine: Engine, send: Send) -> int:
    """Publish all that is due now, a batch of each sort; return the number of messages.

    Raises what ``send`` raises, with nothing lost.
    """
    with engine.begin() as connection:
        messages = mark_due(connection, BATCH)
    send_marked(engine, send, messages)
    return len(messages)


def send_marked(engine: Engine, send: Send, messages: Sequence[Message]) -> None:
    """Send the messages of rows whose marks are committed. Raises what ``send`` raises, after taking back
    the marks of all that did not go out."""
    sent = 0
    try:
        for message in messages:
            send(message.task, message.kwargs, message.task_id)
            sent += 1
    finally:
        if sent < len(messages):
            with engine.begin() as connection:
                for message in messages[sent:]:
                    unmark(connection, message)
