"""Publishes what is due: queued jobs, parked and abandoned rows, roster writes (decisions.md D8).

Rows are marked, the marks are committed, and then the messages are sent: a message that arrived before the
commit would find nothing to claim. If the broker is away, the marks are taken back and the next tick tries
again; if the process dies in between, the marks expire (`worker.jobs.store.publishing`).
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
"""What publishing may raise while the broker is away (celery.md 0.4)."""
BATCH = 100
"""How many jobs, agents' rows and roster writers one transaction marks, each."""


def publish_due(engine: Engine, send: Send) -> int:
    """Publish what is due now, at most BATCH of each kind. Returns the number of messages.

    Raises what ``send`` raises; nothing is lost by that.
    """
    with engine.begin() as connection:
        messages = mark_due(connection, BATCH)
    send_marked(engine, send, messages)
    return len(messages)


def send_marked(engine: Engine, send: Send, messages: Sequence[Message]) -> None:
    """Send the messages of rows whose marks are committed. Raises what ``send`` raises, after taking back the
    marks of all messages that were not sent."""
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
