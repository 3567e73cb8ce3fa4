"""Sessions and waking an agent, with no model configured (gateways.md 3)."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from tests.conformance.conftest import Target
from tests.conformance.peer import Answer, Peer
from tests.conformance.steps import eventually
from tests.conformance.test_3_agents import AGENT, agent, write

__all__ = ["agent"]

KEY = f"agent:{AGENT}:main"
NO_MODEL = "Agent failed before reply"
OLD_FAULT = "Session file path must be within sessions directory"


def chat(peer: Peer, key: str, run: str, **more: Any) -> Answer:
    params = {"sessionKey": key, "message": "Hello.", "deliver": False, "idempotencyKey": run, **more}
    return peer.call("chat.send", params)


def test_a_patch_labels_a_session(peer: Peer, agent: str) -> None:
    patched = peer.ask("sessions.patch", {"key": KEY, "label": "Bob"})
    assert patched["key"] == KEY
    assert patched["entry"]["label"] == "Bob"
    assert patched["entry"]["sessionId"]
    assert peer.ask("sessions.reset", {"key": KEY})["entry"]["label"] == "Bob"


@pytest.mark.parametrize("method", ["sessions.patch", "sessions.reset"])
def test_a_session_is_made_even_for_an_unknown_agent(peer: Peer, method: str) -> None:
    key = f"agent:nobody-{method[9:]}:main"
    assert peer.ask(method, {"key": key})["key"] == key


def test_two_agents_may_share_a_label(peer: Peer) -> None:
    for name in ("twin-a", "twin-b"):
        entry = peer.ask("sessions.patch", {"key": f"agent:{name}:main", "label": "Twin"})["entry"]
        assert entry["label"] == "Twin"


def test_deleting_a_main_session(target: Target, peer: Peer) -> None:
    peer.ask("sessions.patch", {"key": "agent:twin-a:main"})
    answer = peer.call("sessions.delete", {"key": "agent:twin-a:main"})
    if target.expected.roster_is_map:
        assert answer.message == "Cannot delete the main session (agent:twin-a:main)."
        return
    assert answer.payload["deleted"] is True
    assert peer.ask("sessions.delete", {"key": "agent:twin-a:main"})["deleted"] is False


def test_deleting_a_session_that_is_not_there(peer: Peer) -> None:
    assert peer.ask("sessions.delete", {"key": "agent:twin-a:other"})["deleted"] is False


def test_an_empty_message_is_refused(peer: Peer, agent: str) -> None:
    assert chat(peer, KEY, "empty", message="").message == "message or attachment required"


def test_a_wake_is_started_once_for_its_key(target: Target, peer: Peer, agent: str) -> None:
    first, second = peer.call_at_once(
        [("chat.send", {"sessionKey": KEY, "message": "Hello.", "idempotencyKey": "wake-1"})] * 2
    )
    assert first.payload == {"runId": "wake-1", "status": "started"}
    assert second.payload == {"runId": "wake-1", "status": "in_flight"}
    state = "error" if target.expected.reports_failed_runs else "final"
    end = peer.event("chat", target.timeout_s, runId="wake-1", state=state)
    assert end["sessionKey"] == KEY
    if not target.expected.reports_failed_runs:
        assert NO_MODEL in json.dumps(end["message"])
        eventually(lambda: chat(peer, KEY, "wake-1").payload["status"] == "ok", target.timeout_s)
        return
    if not target.expected.repeats_failed_runs:
        return
    again = eventually(lambda: failed(chat(peer, KEY, "wake-1")), target.timeout_s)
    assert again.error["code"] == "UNAVAILABLE"
    assert (NO_MODEL if target.expected.roster_is_map else OLD_FAULT) in again.message
    assert again.payload["runId"] == "wake-1"
    assert again.payload["status"] == "error"


def failed(answer: Answer) -> Answer | None:
    return None if answer.ok else answer


def test_the_history_names_the_key_where_the_run_got_that_far(target: Target, peer: Peer, agent: str) -> None:
    def keys() -> list[Any]:
        history = peer.ask("chat.history", {"sessionKey": KEY})
        assert history["sessionKey"] == KEY
        return [message.get("idempotencyKey") for message in history["messages"]]

    if target.expected.names_wakes_in_history:
        assert eventually(lambda: "wake-1:user" in keys(), target.timeout_s)
    else:
        assert set(keys()) <= {None}


def test_a_reset_ends_the_history(target: Target, peer: Peer, agent: str) -> None:
    before = peer.ask("sessions.patch", {"key": KEY})["entry"]["sessionId"]
    after = peer.ask("sessions.reset", {"key": KEY})["entry"]["sessionId"]
    assert (after == before) is target.expected.roster_is_map
    messages = peer.ask("chat.history", {"sessionKey": KEY})["messages"]
    assert [message["role"] for message in messages] == ["system"] * target.expected.roster_is_map


def test_waking_an_unknown_agent(target: Target, peer: Peer) -> None:
    answer = chat(peer, "agent:nobody:main", "wake-nobody")
    if target.expected.wakes_unknown_agents:
        assert answer.payload["status"] == "started"
    else:
        assert answer.message == 'Agent "nobody" no longer exists in configuration'


def test_the_first_run_of_a_configured_workspace_takes_its_bootstrap_file(target: Target, peer: Peer) -> None:
    workspace = target.state_dir / "ws-boot"
    peer.ask("agents.create", {"name": "boot", "workspace": str(workspace)})
    for name in ("IDENTITY.md", "BOOTSTRAP.md"):
        eventually(partial(_written, peer, name), target.timeout_s)
    assert chat(peer, "agent:boot:main", "wake-boot").payload["status"] == "started"
    state = "error" if target.expected.reports_failed_runs else "final"
    peer.event("chat", target.timeout_s, runId="wake-boot", state=state)
    assert (workspace / "BOOTSTRAP.md").exists() is not target.expected.takes_bootstrap
    if target.expected.roster_is_map:
        write(peer, "boot", "BOOTSTRAP.md", "Once more.")
        files = peer.ask("agents.files.list", {"agentId": "boot"})["files"]
        assert "BOOTSTRAP.md" not in [file["name"] for file in files], (
            "hidden once set up, though it is there"
        )
        assert (workspace / "BOOTSTRAP.md").read_text(encoding="utf-8") == "Once more."


def _written(peer: Peer, name: str) -> bool:
    return peer.call("agents.files.set", {"agentId": "boot", "name": name, "content": "Ours."}).ok
