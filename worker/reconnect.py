"""Celery's consumer, made to survive a lost broker, unreadable messages and a database outage.

Unpatched, celery 5.7.0 with kombu 5.7.0 exits with ``'NoneType' object has no attribute 'hostname'`` if Redis
drops while a worker holds an unacknowledged message (celery.md 0.1). With UPSTREAM set,
tests/integration/worker/test_broker_restart.py runs Celery's own consumer, and so shows when the patch for
that is no longer needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import bootsteps
from celery.exceptions import NotRegistered
from celery.worker.consumer import Consumer
from kombu.message import Message
from kombu.transport import redis
from redis.exceptions import ResponseError

from worker.database_gate import gate
from worker.escaped import escaped
from worker.messages.envelope import UnreadableMessage, normalize
from worker.messages.framing import drop
from worker.messages.transport import SafeTransport

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 3.0
_RUN: Any = vars(bootsteps)["RUN"]  # missing from celery-types, as are the attributes declared below


class ReconnectSafeConsumer(Consumer):
    """A consumer that leaves unacknowledged messages to the visibility timeout when the broker is lost.

    It runs without mingle, which costs every start a second, and without gossip, which fails when the broker
    is lost; what workers must know about each other is in Postgres.
    """

    task_consumer: Any
    strategies: dict[str, Any]
    connection_errors: tuple[type[Exception], ...]
    event_dispatcher: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "without_mingle": True, "without_gossip": True})
        self.connection_errors = (*self.connection_errors, ResponseError)  # as in SafeTransport
        gate.add_listener(partial(self.call_soon, self.apply_gate))

    def on_ready(self) -> None:
        """Start consuming, unless the database gate is closed."""
        super().on_ready()
        self.apply_gate()

    def apply_gate(self) -> None:
        """Start consuming if the database gate is open; stop if it is closed, so that messages stay in their
        queues. Must be called in the consumer's own thread."""
        if self.task_consumer is None or self.blueprint.state != _RUN:
            return
        if gate.closed_by is not None:
            self.task_consumer.cancel()
        else:
            self.task_consumer.consume()

    @property
    def _ours(self) -> set[str]:
        return {name for name in self.strategies if name.startswith("tasks.")}

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Message], None]:
        """A handler that normalizes each message before Celery receives it, and drops unreadable ones."""
        receive = super().create_task_handler(*arguments, **options)

        def guarded(message: Message) -> None:
            try:
                if normalize(message, self._ours):
                    receive(message)
                else:
                    self.on_unknown_task(None, message, NotRegistered(message.headers["task"]))
            except self.connection_errors:
                raise
            except UnreadableMessage as error:
                self._drop(message, str(error))
            except Exception as error:
                log.exception("a message cannot be received")
                self._drop(message, type(error).__name__)

        return guarded

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Drop a message whose task is not ours, and send Flower a task-failed event."""
        name, task_id = escaped(str(message.headers["task"]), 100), message.headers["id"]
        self._drop(message, f"there is no task {name} here: is the name misspelt?")
        if self.event_dispatcher is not None:
            self.event_dispatcher.send("task-failed", uuid=task_id, exception=f"NotRegistered({name!r})")

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Drop a message whose body cannot be unpacked."""
        self._drop(message, f"its body cannot be unpacked ({type(exc).__name__})")

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Drop a message that Celery rejects as invalid."""
        self._drop(message, str(exc))

    def on_unknown_message(self, body: Any, message: Message) -> None:
        """Drop a message that is not in Celery's format."""
        self._drop(message, "it is no message of Celery's")

    def _drop(self, message: Message, why: str) -> None:
        if not message.acknowledged:
            message.ack_log_error(log, self.connection_errors)
        queue = (message.delivery_info or {}).get("routing_key")
        drop(f"queue {escaped(str(queue), 100)}", why, f"id {(message.headers or {}).get('id')}")

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Reconnect without returning messages over the lost channel."""
        transport = getattr(self.connection, "_transport", None)
        for channel in list(getattr(transport, "channels", None) or ()):
            channel.do_restore = False
        super().on_connection_error_after_connected(exc)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, retrying at most _LONGEST_PAUSE_S seconds apart.

        Celery's own pauses grow by two seconds each time: after an outage of two minutes it would reconnect
        half a minute late.
        """
        if conn.get_transport_cls() is redis.Transport:
            conn.get_transport_cls = lambda: SafeTransport
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=_LONGEST_PAUSE_S)
        return super().ensure_connected(conn)

    def call_soon_ack(
        self,
        acknowledge: Callable[..., Any],
        logger: logging.Logger,
        errors: tuple[type[Exception], ...],
        *args: Any,
    ) -> Any:
        """Acknowledge a message, unless its channel is lost, or is found to be lost by that.

        Without an acknowledgement, the message is delivered again and finds its row taken. Celery would log
        ``errors`` as critical, with a traceback.
        """

        lost: tuple[type[Exception], ...] = (AttributeError, *errors)

        def guarded() -> Any:
            try:
                return acknowledge(logger, (), *args)
            except lost:
                log.warning("an acknowledgement came too late for its channel; the message will come again")
                return None

        return super().call_soon_ack(guarded)  # type: ignore[misc]  # missing from celery-types
