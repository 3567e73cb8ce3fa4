"""kombu's Redis transport, which a single list entry that is no message cannot break.

By itself kombu raises out of the consumer's loop: the worker ends, or connects anew, and what it had noted as
unacknowledged comes again and again.
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
from worker.presence import tally

log = logging.getLogger(__name__)

_SHOWN = 200


def drop(where: str, why: str, content: object = "") -> None:
    """Log and count a message that nothing can be done with."""
    tally.drop()
    log.error("dropped a message from %s: %s: %s", where, why, escaped(str(content), _SHOWN))


class SafeQoS(redis.QoS):
    """Serves a message that a full Redis does not let us note as unacknowledged: it has left its queue, where
    Redis would not take it back either. Only a worker that dies meanwhile loses it."""

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)
        except ResponseError as error:
            log.warning("a message cannot be noted in Redis and is served all the same: %s", error)
            super(redis.QoS, self).append(message, delivery_tag)


class SafeChannel(redis.Channel):
    """Drops an entry that is not JSON."""

    QoS = SafeQoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # missing from its stubs
        except (Empty, RedisError, OSError, MemoryError):
            raise
        except Exception as error:  # its delivery raises nothing of the kind: see SafeTransport
            content = getattr(error, "doc", None) or getattr(error, "object", "")
            drop("a queue", f"it is not JSON ({type(error).__name__})", content)
            raise Empty from None


class SafeTransport(redis.Transport):
    """Drops an entry that is JSON, but not framed as kombu frames messages; hands back one that arrives when
    its queue is not consumed any more."""

    Channel = SafeChannel

    # A Redis that is full, became a replica or cannot save refuses commands for a while. That is met by
    # connecting again, as one that is away is, and not by ending the worker.
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
    """What is wrong with an entry of a queue as a message of kombu's, or None."""
    if not isinstance(message, Mapping):
        return "it is no object"
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
        return "its headers are no object"
    return _body_fault(message.get("body"), properties.get("body_encoding"))


def _body_fault(body: Any, encoding: Any) -> str | None:
    if not isinstance(body, str | None):
        return "its body is no text"
    if encoding is None or (isinstance(encoding, str) and encoding.lower() in ("", "utf-8")):
        return None
    if encoding != "base64":
        return "its body_encoding is unknown"
    try:
        binascii.a2b_base64((body or "").encode())
    except ValueError:
        return "its body is not base64"
    return None
