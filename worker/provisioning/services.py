"""What the work gets handed in. Built once a process, and by hand in tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Engine

from worker.drain import draining
from worker.gateway.client import ClientPool
from worker.gateway.retry import inline_retrying
from worker.jobs.outbox import PUBLISH_ERRORS, Message, Send, send_marked
from worker.settings import Settings

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Services:
    """``send(name, kwargs, task_id)`` publishes a message; it raises where the broker cannot be reached."""

    settings: Settings
    engine: Engine
    clients: ClientPool
    send: Send

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages whose marks are committed; where the broker is away, the clock does it later."""
        try:
            send_marked(self.engine, self.send, messages)
        except PUBLISH_ERRORS as error:
            log.warning("not published now: %s", type(error).__name__)

    def patiently(self, work: Callable[[], _T]) -> _T:
        """Run ``work``, and again after blips, for RETRY_INLINE_S seconds at most. Raises its last error."""
        return inline_retrying(self.settings.retry_inline_s, draining)(work)
