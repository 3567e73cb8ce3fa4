"""Stopping and starting the gateway (gateway.md 5). What it knew is on disk. These come last."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Target
from tests.conformance.peer import Peer, meet, meet_when_up
from tests.conformance.steps import roster


def test_a_stop_is_told_and_closes_like_a_restart(target: Target, peer: Peer) -> None:
    before = target.stored_config()
    files = peer.ask("agents.files.list", {"agentId": "one"})
    peer.ask("sessions.patch", {"key": "agent:one:main", "label": "Kept"})
    target.process.stop()
    close = peer.closed(within_s=target.patience_s)
    assert close is not None
    assert (close.code, close.reason) == (1012, "service restart")
    shutdown = next(event for event in peer.events if event["event"] == "shutdown")["payload"]
    assert shutdown["reason"] == "gateway stopping"
    assert shutdown.get("restartExpectedMs") is None
    assert ("restartExpectedMs" in shutdown) is not target.expected.roster_is_map
    with pytest.raises(OSError, match=r"."), meet(target.url, target.token):
        pass
    target.process.start()
    with meet_when_up(target.url, target.token, within_s=target.patience_s) as again:
        assert roster(target, again.ask("config.get")["parsed"]).keys() == roster(target, before).keys()
        assert again.ask("agents.files.list", {"agentId": "one"}) == files
        assert again.ask("sessions.patch", {"key": "agent:one:main"})["entry"]["label"] == "Kept"


def test_a_start_forgets_the_keys_of_earlier_runs(target: Target, peer: Peer) -> None:
    key = "agent:one:main"
    params = {"sessionKey": key, "message": "Hello.", "deliver": False, "idempotencyKey": "wake-over-stop"}
    assert peer.ask("chat.send", params)["status"] == "started"
    peer.event("chat", target.patience_s, runId="wake-over-stop", state="error")
    target.process.stop()
    target.process.start()
    with meet_when_up(target.url, target.token, within_s=target.patience_s) as again:
        messages = again.ask("chat.history", {"sessionKey": key})["messages"]
        keys = [message.get("idempotencyKey") for message in messages]
        assert ("wake-over-stop:user" in keys) is target.expected.roster_is_map
        assert again.ask("chat.send", params)["status"] == "started"
