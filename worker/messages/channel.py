"""Takes messages from Redis' queues in such a way that none is lost, whatever dies meanwhile.

kombu pops a message (BRPOP), and notes it as unacknowledged by further commands. A worker that is killed or
loses its connection between the two loses the message (celery.md 0.8). Here one script does both. Since a
script cannot wait for a message, Redis is asked to tell when one comes into queues that were empty (CLIENT
TRACKING). That is a hint: once a second they are looked at in any case.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from queue import Empty
from typing import Any
from uuid import uuid4

from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import RedisError, ResponseError

from worker.messages.framing import drop, framing_fault

log = logging.getLogger(__name__)

_TAKE = """
local index, unacked, queues = KEYS[#KEYS - 1], KEYS[#KEYS], #KEYS - 2
local tag, now, again = ARGV[1], ARGV[2], ARGV[3] == '1'
local note = again and redis.call('HGET', unacked, tag)
if note then
  redis.call('ZADD', index, now, tag)
  return note
end
for n = 1, queues do
  local entry = redis.call('RPOP', KEYS[n])
  if entry then
    note = '[' .. entry .. ARGV[3 + n]
    redis.pcall('ZADD', index, now, tag)
    redis.pcall('HSET', unacked, tag, note)
    return note
  end
end
redis.call('EXISTS', unpack(KEYS, 1, queues))
return false
"""
"""Takes the oldest message of the first queue that holds one, and notes it as unacknowledged, as kombu does:
its JSON with its exchange and queue, under a tag of ours. If ``again`` is 1, and a message was taken under
that tag before, returns that one.

A server whose memory is full refuses no command of a script that has begun to write. That empty queues are
read has the server tell when they change.
"""

_LOOK_S = 1.0
_UNTOLD_LOOK_S = 0.25
"""Seconds between two looks at empty queues, if Redis tells of what comes into them, and if it does not."""

_unanswered: list[str] = []
"""The tags of looks whose answer was lost with the connection. What was taken under them is asked for again
over the next one."""


class SafeQoS(redis.QoS):
    """Leaves a message that was noted when it was taken as it is, and drops notes that cannot be read."""

    channel: SafeChannel
    _remove_from_indices: Callable[[str], Any]  # missing from kombu's stubs, as are those declared below

    def append(self, message: Any, delivery_tag: str) -> None:
        if delivery_tag == self.channel.taken:
            super(redis.QoS, self).append(message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def forget(self, delivery_tag: str) -> None:
        """Remove the note of a message that is not served."""
        self._remove_from_indices(delivery_tag).execute()

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        except (RedisError, OSError, MemoryError):
            raise
        except Exception as error:
            drop("what was never acknowledged", f"it is not JSON ({type(error).__name__})")
            self.forget(tag)


class SafeChannel(redis.Channel):
    """Takes and notes a message in one step, drops an entry that is not JSON, and makes one client for all
    its commands.

    kombu makes a client for each command, which costs more CPU time than the command.
    """

    QoS = SafeQoS

    qos: SafeQoS
    connection_errors: tuple[type[Exception], ...]
    _closing: bool
    _queue_cycle: Any
    _q_for_pri: Callable[[str, int], str]
    _brpop_sent_at: float | None

    taken = ""
    """The tag under which the last message was noted."""

    _client_of: tuple[Any, Any] | None = None
    """The pool and the client that draws its connections from it."""
    _asked: str | None = None
    """The tag of the look that has not been answered yet."""
    _looked_at = 0.0
    _due = True
    """Whether there may be a message: one was just taken, or Redis told of one."""
    _begins = False
    """Whether the answer to CLIENT TRACKING is still to come."""
    _look_s = _LOOK_S

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # kombu ties each of these to one connection
            return super()._create_client(asynchronous)  # type: ignore[misc]  # missing from its stubs
        pool, made = self.pool, self._client_of
        if made is None or made[0] is not pool:
            made = self._client_of = pool, super()._create_client()  # type: ignore[misc]  # missing from its stubs
        return made[1]

    def take_if_due(self) -> None:
        """Look for a message, unless a look is unanswered, the queues were empty just now, or the channel may
        take none."""
        late = time.monotonic() - self._looked_at >= self._look_s
        free = self._in_poll and self._asked is None and self.active_queues and self.qos.can_consume()
        if free and (self._due or late):
            self._look()

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Begin on a new connection."""
        self._in_poll = self.client.connection  # until it ends: kombu calls this again if it is not set
        self._in_poll.send_command("CLIENT", "TRACKING", "ON")
        self._begins = True
        self._look()

    def _look(self) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        places = [(self._q_for_pri(queue, step), queue) for step in self.priority_steps for queue in queues]
        again, tag = (1, _unanswered.pop()) if _unanswered else (0, str(uuid4()))
        keys = [*(key for key, _ in places), self.unacked_index_key, self.unacked_key]
        ends = [
            f',"",{json.dumps(queue)}]' for _, queue in places
        ]  # exchange "" leads to a queue by its name
        self._asked, self._due = tag, False
        self._looked_at = self._brpop_sent_at = time.monotonic()
        self._in_poll.send_command("EVAL", _TAKE, len(keys), *keys, tag, time.time(), again, *ends)

    def _brpop_read(self, **options: Any) -> Any:
        """Read an answer or a hint. Raises Empty if no message came."""
        if self._asked is None and self._closing:
            raise Empty  # nothing is on its way
        try:
            note, tag = self._answer()
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        if note is None:
            raise Empty
        self._due = True
        self._serve(note, tag)
        return True

    def _answer(self) -> tuple[bytes | None, str]:
        """What was taken, and the tag under which it is noted."""
        connection, tag = self.client.connection, self._asked
        if tag is None:
            self._hint(connection)
            return None, ""
        if self._begins:
            self._is_told(connection)
        note: bytes | None = connection.read_response()
        self._asked = self._brpop_sent_at = None
        while note is None and connection.can_read(timeout=0):
            self._hint(connection)
        return note, tag

    def _hint(self, connection: Any) -> None:
        connection.read_response(push_request=True)
        self._due = True

    def _is_told(self, connection: Any) -> None:
        self._begins = False
        try:
            connection.read_response()
            self._look_s = _LOOK_S
        except ResponseError as error:
            self._look_s = _UNTOLD_LOOK_S
            log.warning(
                "Redis does not tell when a message comes (CLIENT TRACKING: %s); its queues are looked at"
                " every %g seconds",
                error,
                _UNTOLD_LOOK_S,
            )

    def _serve(self, note: bytes, tag: str) -> None:
        try:
            message, _, queue = loads(bytes_to_str(note))
        except Exception as error:
            drop("a queue", f"it is not JSON ({type(error).__name__})", note[1:])
            self.qos.forget(tag)
            return
        self._queue_cycle.rotate(queue)
        if (fault := framing_fault(message)) is not None:
            drop(f"queue {queue}", fault, message)
            self.qos.forget(tag)
            return
        self.taken = message["properties"]["delivery_tag"] = tag
        self.connection._deliver(message, queue)

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._in_poll is connection and self._asked is not None:
            _unanswered.append(self._asked)
            self._asked = None
        super()._on_connection_disconnect(connection)  # type: ignore[misc]  # missing from its stubs


class TakingPoller(redis.MultiChannelPoller):
    """Has its channels look for messages whenever it is time."""

    _channels: set[SafeChannel]
    _timer: Any = None

    def on_poll_start(self) -> None:
        super().on_poll_start()
        self._take()

    def wake(self, loop: Any) -> None:
        """Have the event loop ``loop`` turn often enough, until `close`."""
        self._timer = loop.call_repeatedly(_UNTOLD_LOOK_S, self._take)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().close()

    def _take(self) -> None:
        for channel in self._channels:
            channel.take_if_due()
