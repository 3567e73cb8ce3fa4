"""Publishes what is due: queued jobs, parked and abandoned rows, roster writes (decisions.md D8).

Rows are marked as published, the marks are committed, and then the messages are sent: a message that arrived
before the commit would find nothing to claim. If the broker cannot be reached, the marks are taken back, and
the dispatcher's next tick tries again; if the process dies in between, the marks expire
(`worker.jobs.store.publishing`).
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
"""``send(task name, kwargs, task id)``; raises one of PUBLISH_ERRORS if the broker cannot be reached."""

PUBLISH_ERRORS = (BrokerError, RedisError, OSError, RuntimeError)
"""What publishing may raise if the broker cannot be reached (celery.md 0.4)."""
BATCH = 100
"""The most jobs that one transaction marks; the same limit applies to agents' rows and to roster writers."""


def publish_due(engine: Engine, send: Send) -> int:
    """Publish the jobs, agents' rows and roster writers that are due, at most BATCH of each.

    Returns the number of messages. Raises what ``send`` raises; what was not sent is then due again.
    """
    with engine.begin() as connection:
        messages = mark_due(connection, BATCH)
    send_marked(engine, send, messages)
    return len(messages)


def send_marked(engine: Engine, send: Send, messages: Sequence[Message]) -> None:
    """Send the messages of rows that a committed transaction has marked as published.

    Raises what ``send`` raises, after taking back the marks of all rows whose messages were not sent.
    """
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
