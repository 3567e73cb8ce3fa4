"""agents.* and the files of their workspaces (gateways.md 3, 7)."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import pytest

from tests.conformance.conftest import Target
from tests.conformance.peer import Peer
from tests.conformance.steps import eventually, roster
from worker.workspace.seeds import is_seed

AGENT = f"mc-{uuid.UUID(int=7)}"
TEXT = "# Title\n\nTwo lines, an é and a 🦞.\n"


@pytest.fixture
def agent(target: Target, peer: Peer) -> str:
    """An agent of this module, created once for each gateway."""
    if AGENT not in roster(target, target.stored_config()):
        peer.ask("agents.create", {"name": AGENT, "workspace": str(target.state_dir / "ws-agent")})
    eventually(lambda: is_known(peer, AGENT), target.timeout_s)  # 2026.2.26 loads its config later
    return AGENT


def is_known(peer: Peer, agent: str) -> bool:
    return agent in [listed["id"] for listed in peer.ask("agents.list")["agents"]]


def fetch(peer: Peer, agent: str, name: str) -> dict[str, Any]:
    file: dict[str, Any] = peer.ask("agents.files.get", {"agentId": agent, "name": name})["file"]
    return file


def write(peer: Peer, agent: str, name: str, content: str, **more: object) -> dict[str, Any]:
    params = {"agentId": agent, "name": name, "content": content, **more}
    file: dict[str, Any] = peer.ask("agents.files.set", params)["file"]
    return file


def delete(peer: Peer, agent: str) -> dict[str, Any] | None:
    """None while a gateway does not yet know an agent that it has just created (9.6)."""
    answer = peer.call("agents.delete", {"agentId": agent})
    assert answer.ok or answer.message == f'agent "{agent}" not found'
    return answer.payload if answer.ok else None


def test_an_agent_keeps_a_uuid_name_as_its_id(target: Target, peer: Peer, agent: str) -> None:
    again = peer.call("agents.create", {"name": agent, "workspace": str(target.state_dir / "ws-agent")})
    assert again.error["code"] == "INVALID_REQUEST"
    assert again.message == f'agent "{agent}" already exists'
    assert is_known(peer, agent)


def test_creating_writes_default_files(target: Target, peer: Peer, agent: str) -> None:
    listed = peer.ask("agents.files.list", {"agentId": agent})["files"]
    assert [file["name"] for file in listed] == list(target.expected.listed_files)
    assert [file["name"] for file in listed if file["missing"]] == ["MEMORY.md"]


def test_a_name_becomes_an_id(target: Target, peer: Peer) -> None:
    created = peer.ask(
        "agents.create", {"name": "My Agent: " + "x" * 70, "workspace": str(target.state_dir / "ws-long")}
    )
    assert created["agentId"] == "my-agent-" + "x" * 55
    assert eventually(
        lambda: peer.call("agents.delete", {"agentId": created["agentId"]}).ok, target.timeout_s
    )


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("agents.create", {"name": "x", "workspace": "/x", "zz": 1}, "at root: unexpected property 'zz'"),
        ("agents.update", {}, "must have required property 'agentId'"),
        ("agents.delete", {}, "must have required property 'agentId'"),
        ("agents.files.list", {}, "must have required property 'agentId'"),
        ("agents.files.get", {"agentId": "main", "name": "A", "x": 1}, "at root: unexpected property 'x'"),
        ("agents.files.set", {"agentId": "main", "name": "A"}, "must have required property 'content'"),
        (
            "agents.files.set",
            {"agentId": "main", "name": "A", "content": 5},
            "at /content: must be string",
        ),
        ("config.get", {"x": 1}, "at root: unexpected property 'x'"),
        ("sessions.patch", {}, "must have required property 'key'"),
        ("chat.send", {"sessionKey": "k", "message": "m"}, "must have required property 'idempotencyKey'"),
    ],
)
def test_parameters_are_strict(peer: Peer, method: str, params: dict[str, Any], message: str) -> None:
    answer = peer.call(method, params)
    assert answer.error["code"] == "INVALID_REQUEST"
    assert answer.message == f"invalid {method} params: {message}"


def test_main_cannot_be_created(target: Target, peer: Peer) -> None:
    answer = peer.call("agents.create", {"name": "main", "workspace": str(target.state_dir / "ws-main")})
    assert answer.message == (
        'agent "main" already exists' if target.expected.roster_is_map else '"main" is reserved'
    )


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("agents.files.list", {}),
        ("agents.files.get", {"name": "USER.md"}),
        ("agents.files.set", {"name": "USER.md", "content": "x"}),
    ],
)
def test_files_of_an_unknown_agent(target: Target, peer: Peer, method: str, params: dict[str, str]) -> None:
    assert (
        peer.call(method, {"agentId": "nobody", **params}).message == target.expected.unknown_agent_in_files
    )


def test_what_stands_in_a_new_workspace_is_known_as_seeded(target: Target, peer: Peer, agent: str) -> None:
    """It runs before anything else is written there: a worker must tell this text from a human's words."""
    asked = {"agentId": agent, "name": "USER.md"}
    eventually(lambda: peer.call("agents.files.get", asked).ok, within_s=target.timeout_s)
    for name in ("USER.md", "SOUL.md"):
        assert is_seed(name, fetch(peer, agent, name)["content"]), name
    assert "MEMORY.md" not in [
        file["name"]
        for file in peer.ask("agents.files.list", {"agentId": agent})["files"]
        if not file.get("missing")
    ]


@pytest.mark.parametrize("method", ["agents.update", "agents.delete"])
def test_an_unknown_agent_cannot_be_changed(peer: Peer, method: str) -> None:
    assert peer.call(method, {"agentId": "nobody"}).message == 'agent "nobody" not found'


@pytest.mark.parametrize(
    "name",
    [
        "AGENTS.md",
        "SOUL.md",
        "TOOLS.md",
        "IDENTITY.md",
        "USER.md",
        "HEARTBEAT.md",
        "BOOTSTRAP.md",
        "MEMORY.md",
    ],
)
def test_a_file_is_kept_to_the_byte(target: Target, peer: Peer, agent: str, name: str) -> None:
    if name in target.expected.refused_files:
        pytest.skip("this release refuses it")
    written = write(peer, agent, name, TEXT)
    assert written["content"] == TEXT
    assert written["size"] == len(TEXT.encode())
    assert written["missing"] is False
    assert fetch(peer, agent, name) == written
    assert (target.state_dir / "ws-agent" / name).read_bytes() == TEXT.encode()
    if target.expected.roster_is_map:
        assert written["hash"] == hashlib.sha256(TEXT.encode()).hexdigest()
    listed = {file["name"]: file for file in peer.ask("agents.files.list", {"agentId": agent})["files"]}
    if name in listed:
        shown = {key: value for key, value in written.items() if key not in ("content", "hash")}
        assert listed[name] == shown


def test_other_files_are_refused(target: Target, peer: Peer, agent: str) -> None:
    for name in target.expected.refused_files:
        params = {"agentId": agent, "name": name}
        assert peer.call("agents.files.get", params).message == f'unsupported file "{name}"'
        refused = peer.call("agents.files.set", {**params, "content": "x"})
        assert refused.message == f'unsupported file "{name}"'
        assert not (target.state_dir / "ws-agent" / name).exists()


def test_a_file_written_twice_at_once_is_unsafe_to_the_second_where_writes_are_checked(
    target: Target, peer: Peer, agent: str
) -> None:
    params = {"agentId": agent, "name": "USER.md", "content": TEXT * 1000}
    answers = peer.call_at_once([("agents.files.set", params)] * 8)
    refused = {answer.message for answer in answers if not answer.ok}
    assert any(answer.ok for answer in answers)
    assert refused == ({'unsafe workspace file "USER.md"'} if target.expected.checks_file_writes else set())


def test_an_empty_file_is_there(peer: Peer, agent: str) -> None:
    assert write(peer, agent, "USER.md", "")["size"] == 0
    assert fetch(peer, agent, "USER.md")["missing"] is False


def test_writing_the_same_again_moves_its_time(target: Target, peer: Peer, agent: str) -> None:
    first = write(peer, agent, "SOUL.md", TEXT)["updatedAtMs"]
    assert eventually(lambda: write(peer, agent, "SOUL.md", TEXT)["updatedAtMs"] > first, target.timeout_s)


def test_reading_moves_no_time(peer: Peer, agent: str) -> None:
    before = write(peer, agent, "SOUL.md", TEXT)["updatedAtMs"]
    assert fetch(peer, agent, "SOUL.md")["updatedAtMs"] == before
    files = peer.ask("agents.files.list", {"agentId": agent})["files"]
    assert next(file for file in files if file["name"] == "SOUL.md")["updatedAtMs"] == before


def test_three_megabytes_are_taken(peer: Peer, agent: str) -> None:
    assert write(peer, agent, "MEMORY.md", "x" * 3_000_000)["size"] == 3_000_000


def test_a_write_can_expect_a_hash(target: Target, peer: Peer, agent: str) -> None:
    write(peer, agent, "USER.md", TEXT)
    params = {"agentId": agent, "name": "USER.md", "content": "new"}
    stale = peer.call("agents.files.set", {**params, "expectedHash": "0" * 64})
    if not target.expected.roster_is_map:
        assert stale.message == "invalid agents.files.set params: at root: unexpected property 'expectedHash'"
        return
    current = hashlib.sha256(TEXT.encode()).hexdigest()
    assert stale.message == 'agent file "USER.md" changed since it was read'
    assert stale.error["details"] == {
        "type": "agent_file_conflict",
        "name": "USER.md",
        "currentHash": current,
    }
    assert peer.ask("agents.files.set", {**params, "expectedHash": current})["file"]["content"] == "new"


def test_a_missing_file_is_no_error(target: Target, peer: Peer, agent: str) -> None:
    write(peer, agent, "BOOTSTRAP.md", TEXT)
    (target.state_dir / "ws-agent" / "BOOTSTRAP.md").unlink()
    file = fetch(peer, agent, "BOOTSTRAP.md")
    assert file["missing"] is True
    assert "content" not in file
    assert ("expectedAbsent" in file) is target.expected.roster_is_map


def test_the_workspace_can_be_listed_whole(target: Target, peer: Peer, agent: str) -> None:
    answer = peer.call("agents.workspace.list", {"agentId": agent})
    if not target.expected.lists_workspace:
        assert answer.message == "unknown method: agents.workspace.list"
        return
    written = write(peer, agent, "IDENTITY.md", TEXT)
    listing = peer.ask("agents.workspace.list", {"agentId": agent})
    names = [item["name"] for item in listing["entries"]]
    assert names in (sorted(names), sorted(names, key=str.casefold))
    assert listing["totalEntries"] == len(names)
    assert next(item for item in listing["entries"] if item["name"] == "IDENTITY.md") == {
        "path": "IDENTITY.md",
        "name": "IDENTITY.md",
        "kind": "file",
        "size": written["size"],
        "updatedAtMs": written["updatedAtMs"],
    }
    first = peer.ask("agents.workspace.list", {"agentId": agent, "limit": 1})
    assert (len(first["entries"]), first["totalEntries"]) == (1, len(names))


def test_any_text_of_the_workspace_can_be_read(target: Target, peer: Peer, agent: str) -> None:
    def read(path: str) -> Any:
        return peer.call("agents.workspace.get", {"agentId": agent, "path": path})

    if not target.expected.lists_workspace:
        assert read("AGENTS.md").message == "unknown method: agents.workspace.get"
        return
    write(peer, agent, "IDENTITY.md", TEXT)
    workspace = target.state_dir / "ws-agent"
    (workspace / "notes").mkdir()
    (workspace / "notes" / "a.txt").write_text("Rain.")
    (workspace / "link.txt").symlink_to("/etc/hostname")
    (workspace / "long.txt").write_text("x" * 262_145)
    (workspace / "blob.bin").write_bytes(b"\xff\xfe")
    file = read("notes/a.txt").payload["file"]
    assert (file["path"], file["encoding"], file["content"], file["size"]) == (
        "notes/a.txt",
        "utf8",
        "Rain.",
        5,
    )
    refusals = {
        "link.txt": ("workspace file not found", "workspace_file_not_found"),
        "long.txt": ("workspace file is too large to preview", "workspace_file_too_large"),
        "blob.bin": (
            "workspace file is not UTF-8 text or a supported image",
            "workspace_file_unsupported",
        ),
        "../openclaw.json": ("path escapes the agent workspace", "workspace_path_invalid"),
    }
    for path, (message, kind) in refusals.items():
        answer = read(path)
        assert (answer.message, answer.error["details"]["type"]) == (message, kind)


def test_a_workspace_that_is_not_there_cannot_be_listed(target: Target, peer: Peer) -> None:
    if not target.expected.lists_workspace:
        pytest.skip("no such method")
    answer = peer.call("agents.workspace.list", {"agentId": "one"})
    assert answer.message == "workspace directory not found"
    assert answer.error["details"] == {"type": "workspace_path_not_found", "path": ""}


def test_a_deleted_agent_is_gone_with_its_files(target: Target, peer: Peer) -> None:
    workspace = target.state_dir / "ws-gone"
    peer.ask("agents.create", {"name": "gone", "workspace": str(workspace)})
    deleted = eventually(lambda: delete(peer, "gone"), target.timeout_s)
    assert deleted["agentId"] == "gone"
    assert ("removed" in deleted) is target.expected.roster_is_map
    assert workspace.exists() is target.expected.leaves_distant_folders, "outside the gateway's home"
    assert "gone" not in roster(target, target.stored_config())
    eventually(lambda: not is_known(peer, "gone"), target.timeout_s)
    assert "not found" in peer.call("agents.delete", {"agentId": "gone"}).message


def test_main_cannot_be_deleted_on_older_releases(target: Target, peer: Peer) -> None:
    if target.expected.roster_is_map:
        pytest.skip("newer ones delete it like any other")
    assert peer.call("agents.delete", {"agentId": "main"}).message == '"main" cannot be deleted'
