"""Mends celery 5.7.0 with kombu 5.7.0: a worker that holds an unacknowledged message when Redis drops exits
with ``'NoneType' object has no attribute 'hostname'`` (celery.md 0.1).

tests/integration/worker/test_broker_restart.py holds Celery's own consumer against it, and says when it can
go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.worker.consumer import Consumer

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 3.0


class ReconnectSafeConsumer(Consumer):
    """A consumer that leaves unacknowledged messages to the visibility timeout when the broker goes away.

    It knows no neighbours: mingle costs every start a second, gossip stumbles over a lost broker, and what
    workers must know of each other stands in Postgres.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "without_mingle": True, "without_gossip": True})

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Reconnect, without handing messages back over a channel that is gone."""
        transport = getattr(self.connection, "_transport", None)
        for channel in list(getattr(transport, "channels", None) or ()):
            channel.do_restore = False
        super().on_connection_error_after_connected(exc)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, and look again every few seconds where that fails: by itself Celery takes two more each
        time, and would find a broker that was away for two minutes half a minute late."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=_LONGEST_PAUSE_S)
        return super().ensure_connected(conn)

    def call_soon_ack(self, acknowledge: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge, unless the channel has gone: then the message comes again and finds its row taken."""

        def guarded() -> Any:
            try:
                return acknowledge(*args, **kwargs)
            except AttributeError:
                log.warning("an acknowledgement came too late for its channel; the message will come again")
                return None

        return super().call_soon_ack(guarded)  # type: ignore[misc]  # missing from celery-types
