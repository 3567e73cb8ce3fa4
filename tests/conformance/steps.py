"""What tests of several modules do to a gateway: patch its roster, and wait out what follows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from websockets.exceptions import ConnectionClosed

from tests.conformance.conftest import Target
from tests.conformance.peer import JSON, Answer, Device, Peer, meet_when_up

Value = TypeVar("Value")


def eventually(probe: Callable[[], Value | None], within_s: float) -> Value:
    """The first true value of ``probe``; AssertionError when none comes in time."""
    until = time.monotonic() + within_s
    while not (value := probe()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)
    return value


def patch(peer: Peer, change: Mapping[str, Any], **more: object) -> Answer:
    """One config.patch on the newest hash; ``more`` are its other parameters."""
    current = peer.ask("config.get")["hash"]
    return peer.call("config.patch", {"raw": json.dumps(change), "baseHash": current, **more})


def patched(target: Target, peer: Peer, change: Mapping[str, Any], *, restarts: int = 1) -> JSON:
    """A patch that must succeed, and the restarts that follow where the release makes them.

    Where restarts are spaced one may be half a minute away: it is left to a test of its own. That of an
    earlier patch may come at any moment, so also in the middle of this one, which is then made again.
    """
    try:
        answer = patch(peer, change)
    except ConnectionClosed:
        if not target.expected.spaces_restarts:
            raise
        scopes = Device()  # without a device 2026.3.13 gives none
        with meet_when_up(target.url, target.token, within_s=target.timeout_s, device=scopes) as again:
            answer = patch(again, change)
    assert answer.ok, answer.error
    if target.expected.restarts_on_patch and not target.expected.spaces_restarts:
        await_restarts(target, peer, restarts)
    return answer.payload


def await_restarts(target: Target, peer: Peer, restarts: int) -> None:
    """See ``restarts`` closes with 1012 one after another, each announced, and the gateway up again."""
    assert_restarts(peer, target)
    for _ in range(restarts - 1):
        with meet_when_up(target.url, target.token, within_s=target.timeout_s) as again:
            assert_restarts(again, target)
    with meet_when_up(target.url, target.token, within_s=target.timeout_s):
        pass


def assert_restarts(peer: Peer, target: Target) -> None:
    close = peer.closed(within_s=target.timeout_s)
    assert close is not None, "no restart came"
    assert (close.code, close.reason) == (1012, "service restart")
    shutdown = next(event for event in peer.events if event["event"] == "shutdown")
    assert shutdown["payload"] == {"reason": "gateway restarting", "restartExpectedMs": 1500}


def registering(target: Target, config: JSON, entries: Mapping[str, JSON]) -> JSON:
    """The patch that adds ``entries`` to the roster and keeps all others."""
    if target.expected.roster_is_map:
        return {"agents": {"ownership": "explicit", "entries": dict(entries)}}
    listed = config.get("agents", {}).get("list") or [{"id": "main"}]
    kept = [entry for entry in listed if entry["id"] not in entries]
    return {"agents": {"list": [*kept, *({"id": agent_id, **entry} for agent_id, entry in entries.items())]}}


def roster(target: Target, config: JSON) -> dict[str, JSON]:
    """Entries by agent id in a ``parsed`` config."""
    agents = config.get("agents", {})
    if target.expected.roster_is_map:
        entries: dict[str, JSON] = agents.get("entries", {})
        return entries
    return {entry["id"]: entry for entry in agents.get("list", [])}


def stay_open(target: Target, peer: Peer) -> None:
    """Nothing closes the connection for a while."""
    assert peer.closed(within_s=target.quiet_s) is None
