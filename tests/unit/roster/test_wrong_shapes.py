"""config.get and agents.list with a wrong value anywhere give a roster, or say that it is unknown."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from worker.errors import PermanentError
from worker.gateway.dialect import Dialect
from worker.gateway.folders import folders_of, home_folder
from worker.gateway.owner_settings import disabling_settings
from worker.gateway.rewrites import (
    describe_rewrites,
    has_comments,
    removal_rewrites,
    rewrites_of,
    with_escapes,
)
from worker.gateway.roster_plan import RosterEntry, removal_patch
from worker.gateway.roster_reading import LiveRoster, RosterUnknownError

OLDEST = Dialect.from_hello("dev", ["config.get"])
NEWEST = Dialect.from_hello("2026.9.6", ["cron.scratch.set", "agents.workspace.list", "secrets.reload"])
WRONG: list[Any] = [None, True, 10**23, 1.5, "a\x00b\ud800", [], [7], {}, {"a": {"a": []}}, {"$include": 7}]
BLOCK = {"heartbeat": {"every": "5m"}, "name": "${A}", "workspace": "~/x", "agentDir": "/d"}
ROOT: dict[str, Any] = {
    "channels": {"defaults": {"heartbeat": {"showOk": True}, "heartbeatVisibility": {"showOk": True}}},
    "bindings": [{"agentId": "main"}],
    "session": {
        "scope": "global",
        "sendPolicy": {"rules": [{"action": "deny", "match": {"keyPrefix": "x"}}]},
    },
    "cron": {"enabled": False},
    "gateway": {"auth": {"token": "__OPENCLAW_REDACTED__"}},
    "models": {"$include": "./models.json5"},
}
AGENTS = {
    "list": {"defaults": BLOCK, "list": [{"id": "main", "default": True, **BLOCK}, {"id": "mc-1"}]},
    "entries": {"defaults": BLOCK, "entries": {"main": {"default": True, **BLOCK}, "mc-1": {}}},
}
LISTED: dict[str, Any] = {"agents": [{"id": "main"}], "defaultId": "main", "mainKey": "main"}


def answered(dialect: Dialect) -> dict[str, Any]:
    config = {**ROOT, "agents": AGENTS[dialect.roster]}
    warnings = [{"message": 'Missing env var "A"'}]
    issues = [{"path": "a", "message": "b"}]
    said = {"config": config, "parsed": config, "raw": "{/* */}", "hash": "abc", "path": "/h/openclaw.json"}
    return {**said, "valid": True, "issues": issues, "warnings": warnings}


def spoilt(value: Any) -> Iterator[Any]:
    """``value`` with each of its parts replaced in turn by each wrong value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        for other in [*WRONG, *spoilt(item)]:
            changed = copy.copy(value)
            changed[key] = other
            yield changed


def use(dialect: Dialect, answer: Any, listed: Any) -> None:
    live = LiveRoster.of(dialect, answer, listed)
    wanted = [RosterEntry("mc-1", "A", "/w/a", {"every": "7m"}), RosterEntry("mc-2", "B", "~/q")]
    plan = live.plan(wanted, keep_others_beating=True)
    if plan.document is not None:
        with_escapes(live, live.next_patch(plan.document))
        live.unwritten_include(plan.document)
    describe_rewrites(
        (*rewrites_of(live, "t"), *removal_rewrites(live, ["main"])), comments=has_comments(live)
    )
    removal_patch(live.document, ["main"])
    folders_of(live), home_folder(live), list(disabling_settings(dialect, answer.get("config")))


@pytest.mark.parametrize("dialect", [OLDEST, NEWEST], ids=["list", "entries"])
def test_no_answer_is_a_fault_of_our_own(dialect: Dialect) -> None:
    whole = answered(dialect)
    answers = [(answer, LISTED) for answer in spoilt(whole)] + [(whole, listed) for listed in spoilt(LISTED)]
    for answer, listed in answers:
        try:
            use(dialect, answer, listed)
        except PermanentError:
            continue


@pytest.mark.parametrize("agents", [[], "x", 7, True])
@pytest.mark.parametrize("dialect", [OLDEST, NEWEST], ids=["list", "entries"])
def test_a_roster_of_another_shape_is_unknown_and_not_empty(dialect: Dialect, agents: Any) -> None:
    inner = [{}, "x", 7, True] if dialect.roster == "list" else [[], "x", 7, True]
    wrong = [agents, *({dialect.roster: value} for value in inner)]
    wrong += [{dialect.roster: [7]}, {dialect.roster: {"main": 7}}]
    for value in wrong:
        with pytest.raises(RosterUnknownError, match=r"agents.* is not what OpenClaw keeps there"):
            LiveRoster.of(dialect, {"valid": True, "parsed": {"agents": value}})
    none: list[Any] = [{}, {"agents": None}, {"agents": {}}, {"agents": {dialect.roster: None}}]
    for fine in none:
        assert LiveRoster.of(dialect, {"valid": True, "parsed": fine}).present == frozenset()
