"""What the work gets handed in. Built once a process, and by hand in tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Engine

from worker.drain import draining
from worker.gateway.client import ClientPool
from worker.gateway.retry import inline_retrying
from worker.jobs.outbox import Send
from worker.settings import Settings

_T = TypeVar("_T")


@dataclass(frozen=True)
class Services:
    """``send(name, kwargs, task_id)`` publishes a message; it raises where the broker cannot be reached."""

    settings: Settings
    engine: Engine
    clients: ClientPool
    send: Send

    def patiently(self, work: Callable[[], _T]) -> _T:
        """Run ``work``, and again after blips, for RETRY_INLINE_S seconds at most. Raises its last error."""
        return inline_retrying(self.settings.retry_inline_s, draining)(work)
