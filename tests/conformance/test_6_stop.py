"""Stopping and starting the gateway (gateways.md 5). What it knew is on disk. These come last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.conformance.conftest import Target
from tests.conformance.peer import JSON, Close, Device, Peer, meet, meet_when_up
from tests.conformance.steps import eventually, roster

AGENT = "kept"
KEY = f"agent:{AGENT}:main"
WAKE = {"sessionKey": KEY, "message": "Hello.", "deliver": False, "idempotencyKey": "wake-over-stop"}


@dataclass(frozen=True)
class Stop:
    """One stop and start, which all tests here share: what a client saw, what stood before."""

    close: Close | None
    shutdown: JSON
    config: JSON
    files: JSON
    was_refused: bool


@pytest.fixture(scope="module")
def stop(target: Target) -> Stop:
    with meet_when_up(target.url, target.token, within_s=target.timeout_s, device=Device()) as peer:
        peer.ask("agents.create", {"name": AGENT, "workspace": str(target.state_dir / "ws-kept")})
        peer.ask("sessions.patch", {"key": KEY, "label": "Kept"})
        assert eventually(lambda: peer.call("chat.send", WAKE).ok, target.timeout_s)  # 9.6 knows it later
        state = "error" if target.expected.reports_failed_runs else "final"
        peer.event("chat", target.timeout_s, runId=WAKE["idempotencyKey"], state=state)
        eventually(lambda: peer.call("agents.files.list", {"agentId": AGENT}).ok, target.timeout_s)
        config, files = target.stored_config(), peer.ask("agents.files.list", {"agentId": AGENT})
        target.process.stop()
        close = peer.closed(within_s=target.timeout_s)
        shutdown = next(event for event in peer.events if event["event"] == "shutdown")["payload"]
    was_refused = _is_refused(target)
    target.process.start()
    return Stop(close, shutdown, config, files, was_refused)


def _is_refused(target: Target) -> bool:
    try:
        with meet(target.url, target.token):
            return False
    except ConnectionRefusedError:
        return True


def test_a_stop_is_told_and_closes_like_a_restart(target: Target, stop: Stop) -> None:
    assert stop.close is not None
    assert (stop.close.code, stop.close.reason) == (1012, "service restart")
    assert stop.shutdown["reason"] == "gateway stopping"
    assert stop.shutdown.get("restartExpectedMs") is None
    assert ("restartExpectedMs" in stop.shutdown) is not target.expected.roster_is_map


def test_nobody_answers_while_it_is_stopped(stop: Stop) -> None:
    assert stop.was_refused


def test_a_start_finds_roster_files_and_sessions(target: Target, stop: Stop, peer: Peer) -> None:
    assert roster(target, peer.ask("config.get")["parsed"]).keys() == roster(target, stop.config).keys()
    assert peer.ask("agents.files.list", {"agentId": AGENT}) == stop.files
    assert peer.ask("sessions.patch", {"key": KEY})["entry"]["label"] == "Kept"


def test_a_start_forgets_the_keys_of_earlier_runs(target: Target, stop: Stop, peer: Peer) -> None:
    messages: list[Any] = peer.ask("chat.history", {"sessionKey": KEY})["messages"]
    keys = [message.get("idempotencyKey") for message in messages]
    if keys or target.release != "2026.7.1":  # which comes back with an empty history now and then
        assert ("wake-over-stop:user" in keys) is target.expected.names_wakes_in_history
    assert peer.ask("chat.send", WAKE)["status"] == "started"
