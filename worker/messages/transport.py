"""kombu's Redis transport, made to lose no message and to survive entries that are not messages."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis
from redis.exceptions import ResponseError

from worker.messages.channel import SafeChannel, TakingPoller
from worker.messages.framing import drop, framing_fault
from worker.messages.unpacking import unpack


class SafeTransport(redis.Transport):
    """Drops a JSON entry that is not framed as kombu frames messages.

    Returns a message to its queue if it arrives when that queue is no longer consumed.
    """

    Channel = SafeChannel

    # Redis refuses commands for a while if it is full, became a replica or cannot save. The worker then
    # reconnects instead of ending, as it does when Redis is away.
    connection_errors = (*redis.Transport.connection_errors, ResponseError)

    cycle: TakingPoller

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cycle = TakingPoller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Have the event loop ``loop`` serve the connection."""
        super().register_with_event_loop(connection, loop)
        self.cycle.wake(loop)

    def _deliver(self, message: Any, queue: str | None) -> None:
        if (fault := framing_fault(message)) is not None:
            drop(f"queue {queue}", fault, message)
            return
        unpack(message)
        if queue not in (self._callbacks or {}):
            self._reject_inbound_message(message)
        else:
            super()._deliver(message, queue)
