"""Makes kombu's Redis transport safe against list entries that are not messages.

For such an entry, kombu itself raises out of the consumer's loop: the worker ends or reconnects, and the
entries that it had noted as unacknowledged are delivered again and again.
"""

from __future__ import annotations

import binascii
import logging
from collections.abc import Mapping
from queue import Empty
from typing import Any

from kombu.transport import redis
from redis.exceptions import RedisError, ResponseError

from worker.escaped import escaped
from worker.messages.unpacking import unpack
from worker.worker_row import message_counts

log = logging.getLogger(__name__)

_SHOWN = 200


def drop(where: str, why: str, content: object = "") -> None:
    """Log and count a message that can be neither served nor refused in a row."""
    message_counts.drop()
    log.error("dropped a message from %s: %s: %s", where, why, escaped(str(content), _SHOWN))


class SafeQoS(redis.QoS):
    """Serves a message even if a full Redis refuses to note it as unacknowledged.

    The message has left its queue, and Redis would not take it back either. It is lost only if the worker
    dies before it is done with the message.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)
        except ResponseError as error:
            log.warning("a message cannot be noted in Redis and is served all the same: %s", error)
            super(redis.QoS, self).append(message, delivery_tag)


class SafeChannel(redis.Channel):
    """Drops an entry that is not JSON, and makes one client for all its commands.

    kombu makes a client for each command, which costs more CPU time than the command.
    """

    QoS = SafeQoS

    _client_of: tuple[Any, Any] | None = None
    """The pool and the client that draws its connections from it."""

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # kombu ties each of these to one connection
            return super()._create_client(asynchronous)  # type: ignore[misc]  # missing from its stubs
        pool, made = self.pool, self._client_of
        if made is None or made[0] is not pool:
            made = self._client_of = pool, super()._create_client()  # type: ignore[misc]  # missing from its stubs
        return made[1]

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # missing from its stubs
        except (Empty, RedisError, OSError, MemoryError):
            raise
        except Exception as error:  # not from delivering the message, which does not raise: see SafeTransport
            content = getattr(error, "doc", None) or getattr(error, "object", "")
            drop("a queue", f"it is not JSON ({type(error).__name__})", content)
            raise Empty from None


class SafeTransport(redis.Transport):
    """Drops a JSON entry that is not framed as kombu frames messages.

    Returns a message to its queue if it arrives when that queue is no longer consumed.
    """

    Channel = SafeChannel

    # Redis refuses commands for a while if it is full, became a replica or cannot save. The worker then
    # reconnects instead of ending, as it does when Redis is away.
    connection_errors = (*redis.Transport.connection_errors, ResponseError)

    def _deliver(self, message: Any, queue: str | None) -> None:
        if (fault := framing_fault(message)) is not None:
            drop(f"queue {queue}", fault, message)
            return
        unpack(message)
        if queue not in (self._callbacks or {}):
            self._reject_inbound_message(message)
        else:
            super()._deliver(message, queue)


def framing_fault(message: Any) -> str | None:
    """Why a queue's entry is not framed as kombu frames messages; None if it is."""
    if not isinstance(message, Mapping):
        return "it is not an object"
    properties = message.get("properties")
    if not isinstance(properties, Mapping):
        return "it has no properties"
    if not isinstance(properties.get("delivery_tag"), str):
        return "it has no delivery_tag"
    place = properties.get("delivery_info")
    if not isinstance(place, Mapping):
        return "it has no delivery_info"
    if not all(isinstance(place.get(name), str) for name in ("exchange", "routing_key")):
        return "its delivery_info has no exchange or routing_key"
    if not isinstance(message.get("headers"), Mapping | None):
        return "its headers are not an object"
    return _body_fault(message.get("body"), properties.get("body_encoding"))


def _body_fault(body: Any, encoding: Any) -> str | None:
    if not isinstance(body, str | None):
        return "its body is not text"
    if encoding is None or (isinstance(encoding, str) and encoding.lower() in ("", "utf-8")):
        return None
    if encoding != "base64":
        return "its body_encoding is unknown"
    try:
        binascii.a2b_base64((body or "").encode())
    except ValueError:
        return "its body is not base64"
    return None
