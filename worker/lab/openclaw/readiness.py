"""Checks whether a gateway is ready, by a minimal real ``connect`` (gateways.md 1, 5)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

_ANSWER_S = 20.0
_PAUSE_S = 0.1


class Refused(Exception):
    """The gateway is up and refuses the connection for a reason that does not pass."""


def wait_until_ready(url: str, token: str, *, deadline: float, is_alive: Callable[[], bool]) -> bool:
    """Return true once a ``connect`` is answered ok, false if the process ends or ``deadline`` passes first.

    ``deadline`` is a value of ``time.monotonic()``.
    Raises ``Refused`` with the gateway's own words.
    """
    while is_alive() and time.monotonic() < deadline:
        try:
            if _connect_is_accepted(url, token):
                return True
        except (OSError, WebSocketException, ValueError):
            pass
        time.sleep(_PAUSE_S)
    return False


def _connect_is_accepted(url: str, token: str) -> bool:
    with connect(url, open_timeout=_ANSWER_S, close_timeout=1, max_size=2**25, proxy=None) as socket:
        socket.send(json.dumps(_connect_request(token)))
        until = time.monotonic() + _ANSWER_S
        while (left := until - time.monotonic()) > 0:
            frame: Any = json.loads(socket.recv(left))
            if frame.get("type") == "res":
                return _is_ok(frame)
    return False


def _is_ok(answer: Mapping[str, Any]) -> bool:
    if answer.get("ok"):
        return True
    error = answer.get("error") or {}
    if error.get("retryable") or error.get("code") == "UNAVAILABLE":
        return False
    raise Refused(f"{error.get('code')}: {error.get('message')}")


def _connect_request(token: str) -> dict[str, Any]:
    return {
        "type": "req",
        "id": "ready",
        "method": "connect",
        "params": {
            "minProtocol": 3,
            "maxProtocol": 4,
            "client": {"id": "gateway-client", "mode": "backend", "version": "1", "platform": "linux"},
            "role": "operator",
            "scopes": ["operator.read"],
            "auth": {"token": token},
        },
    }
