"""Tells entries of a queue that are framed as kombu frames messages from others, which are dropped.

For such an entry, kombu itself raises out of the consumer's loop: the worker ends or reconnects, and the
entries that it had noted as unacknowledged are delivered again and again.
"""

from __future__ import annotations

import binascii
import logging
from collections.abc import Mapping
from typing import Any

from worker.escaped import escaped
from worker.worker_row import message_counts

log = logging.getLogger(__name__)

_SHOWN = 200


def drop(where: str, why: str, content: object = "") -> None:
    """Log and count a message that can be neither served nor refused in a row."""
    message_counts.drop()
    log.error("dropped a message from %s: %s: %s", where, why, escaped(str(content), _SHOWN))


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
