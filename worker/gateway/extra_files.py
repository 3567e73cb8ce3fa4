"""Finds out whether a gateway takes workspace files beyond those that its dialect knows, by asking for them.

No known release takes any, but a layer of templates may hold one, and a later release may take it. Each
process asks a gateway once for each name.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

from worker.gateway.client import GatewayClient
from worker.gateway.errors import UnknownAgent, UnsupportedFile

_MOST_KNOWN = 2_000
_LOCK = threading.Lock()
_KNOWN: dict[tuple[str, str, frozenset[str], str], bool] = {}
"""By URL, version, methods and file name: a gateway that was updated is asked again."""


def taken_files(client: GatewayClient, openclaw_id: str, names: Collection[str]) -> dict[str, bool | None]:
    """Whether the gateway takes each of these files; None if it cannot tell yet, because it does not know the
    agent. Raises GatewayError."""
    if not names:
        return {}
    hello = client.hello()
    release = (client.address.url, hello.server_version, frozenset(hello.methods))
    return {name: _takes(client, openclaw_id, (*release, name)) for name in sorted(names)}


def _takes(client: GatewayClient, openclaw_id: str, key: tuple[str, str, frozenset[str], str]) -> bool | None:
    with _LOCK:
        known = _KNOWN.get(key)
    if known is not None:
        return known
    try:
        client.call("agents.files.get", {"agentId": openclaw_id, "name": key[-1]})
        takes = True
    except UnsupportedFile:
        takes = False
    except UnknownAgent:
        return None
    with _LOCK:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = takes
    return takes
