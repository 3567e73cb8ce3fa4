"""The services that every job receives; a process builds them once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Engine

from worker.errors import TransientError
from worker.gateway.client import ClientPool
from worker.gateway.errors import OUTAGES
from worker.gateway.idle_timeout import within_budget
from worker.jobs.messages import Message
from worker.jobs.outbox import PUBLISH_ERRORS, Send, send_marked
from worker.jobs.retry_policy import RetryPolicy, inline_retrying
from worker.runtime.gateway_slots import GatewaySlots, slots_per_gateway
from worker.runtime.token_pool import TokenPool
from worker.settings import Settings
from worker.shutdown_flag import shutting_down

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Services:
    """Gives jobs access to settings, database and gateways, and sends messages.

    ``send(name, kwargs, task_id)`` publishes a message and raises if the broker cannot be reached;
    ``waits_for_outages()``: whether `retry_inline` may wait for a gateway that cannot be reached;
    ``announce`` sends the success events of jobs that were ended while another job was being executed.
    """

    settings: Settings
    engine: Engine
    clients: ClientPool
    send: Send
    waits_for_outages: Callable[[], bool] = lambda: True
    token_pool: TokenPool = field(default_factory=TokenPool)
    slots: GatewaySlots = field(default_factory=lambda: GatewaySlots(slots_per_gateway(16)))
    announce: Callable[[Sequence[UUID]], None] = lambda _: None

    @property
    def retry_policy(self) -> RetryPolicy:
        """The retry policy with this worker's settings."""
        return RetryPolicy(self.settings.retry_timeout_s, self.settings.crash_limit)

    def publish(self, messages: Sequence[Message]) -> None:
        """Send the messages of rows that a committed transaction has marked as published.

        If the broker cannot be reached, this logs a warning, and the dispatcher sends them later.
        """
        try:
            send_marked(self.engine, self.send, messages)
        except PUBLISH_ERRORS as error:
            log.warning("not published now: %s", type(error).__name__)

    def for_gateway(self, gateway_id: UUID | None, *, in_sync: bool) -> Services:
        """Return a copy of the services for work at one gateway.

        With the copy, `retry_inline` does not wait for an outage in a sync, nor while messages wait for the
        gateway's slots, so that an unreachable gateway does not hold up the others (decisions.md D7).
        """

        def waits() -> bool:
            return not in_sync and (gateway_id is None or not self.slots.has_waiting(gateway_id))

        return replace(self, waits_for_outages=waits)

    def retry_inline(self, work: Callable[[], _T]) -> _T:
        """Call ``work`` and return its result; repeat it after transient errors for at most RETRY_INLINE_S
        seconds, then raise the last error.
        """

        def never_retried(error: TransientError) -> bool:
            return isinstance(error, OUTAGES) and not self.waits_for_outages()

        return inline_retrying(
            within_budget(self.settings.retry_inline_s), shutting_down, unless=never_retried
        )(work)
