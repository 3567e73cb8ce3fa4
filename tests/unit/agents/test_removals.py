"""What the answer to agents.delete leaves unsaid about the agent's folder."""

from __future__ import annotations

from typing import Any

import pytest

from worker.gateway.dialect import Dialect
from worker.gateway.roster_reading import LiveRoster
from worker.roster.removals import what_is_left

SUMMER = Dialect.from_hello("2026.7.1", {"secrets.reload", "agents.workspace.list"})
EARLIER = Dialect.from_hello("2026.3.13", {"secrets.reload"})
NEWEST = Dialect.from_hello("2026.9.6", {"cron.scratch.set", "agents.workspace.list"})
USUAL = "/home/claw/.openclaw/openclaw.json"


def left(dialect: Dialect, workspace: str, path: str = USUAL, **said: Any) -> str:
    live = LiveRoster.of(dialect, {"valid": True, "parsed": {}, "config": {}, "path": path})
    return " ".join(what_is_left(live, {"ok": True, **said}, "mc-1", workspace))


@pytest.mark.parametrize("workspace", ["/home/claw/agents/mc-1", "/home/claw/.openclaw/workspace-mc-1/"])
def test_a_folder_in_the_gateways_home_is_gone(workspace: str) -> None:
    assert left(SUMMER, workspace) == ""


@pytest.mark.parametrize("workspace", ["/srv/agents/mc-1", "/home/clawed/mc-1", "/home/claw"])
def test_a_folder_elsewhere_is_named_with_the_cure(workspace: str) -> None:
    said = left(SUMMER, workspace)
    assert "left the workspace of mc-1 where it is" in said
    assert f"delete {workspace} there by hand" in said


@pytest.mark.parametrize(
    ("workspace", "path"), [("/srv/agents/mc-1", "/etc/openclaw.json"), ("/tmp/mc-1", USUAL)]
)
def test_where_nobody_can_tell_that_is_said(workspace: str, path: str) -> None:
    assert f"if the workspace of mc-1, {workspace}, is still there, delete it" in left(
        SUMMER, workspace, path
    )


def test_releases_that_remove_any_folder_or_list_what_they_removed_are_believed() -> None:
    assert left(EARLIER, "/srv/agents/mc-1") == ""
    removed = [{"path": "/srv/agents/mc-1", "method": "trash"}]
    assert left(NEWEST, "/srv/agents/mc-1", removed=removed) == ""
    assert "delete /srv/agents/mc-1 there by hand" in left(NEWEST, "/srv/agents/mc-1", removed=[])


@pytest.mark.parametrize("spelled", ["mc-1", " MC-1"])
def test_defaults_that_the_gateway_drops_with_the_agent_are_named(spelled: str) -> None:
    defaults = {"heartbeat": {"agentId": spelled, "every": "45m"}, "systemAgent": {"agentId": "main"}}
    config = {"agents": {"defaults": defaults, "entries": {"mc-1": {}, "main": {}}}}
    live = LiveRoster.of(NEWEST, {"valid": True, "parsed": config, "config": config, "path": USUAL})
    (said,) = what_is_left(live, {"ok": True, "removed": []}, "mc-1", None)
    dropped = "dropped agents.defaults.heartbeat of its openclaw.json"
    assert f"{dropped}, which named it, and with it every" in said
