"""What a gateway's owner switched off is recognized from its config alone."""

from __future__ import annotations

from typing import Any

import pytest

from worker.cli.doctor.owner import check_settings
from worker.gateway.dialect import Dialect
from worker.gateway.heartbeats import beating_agents
from worker.gateway.owner_settings import denial_of, has_one_session, heartbeats_switched_off

OLDEST = Dialect.from_hello("dev", set())
SUMMER = Dialect.from_hello("2026.7.1", {"secrets.reload", "agents.workspace.list"})
NEWEST = Dialect.from_hello("2026.9.6", {"secrets.reload", "agents.workspace.list", "cron.scratch.set"})
KEY = "agent:mc-1:main"


def policy(*rules: dict[str, Any], default: str = "allow") -> dict[str, Any]:
    return {"session": {"sendPolicy": {"default": default, "rules": list(rules)}}}


def rule(action: str, **match: str) -> dict[str, Any]:
    return {"action": action, "match": match}


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({}, None),
        (policy(), None),
        (policy(default="deny"), "session.sendPolicy.default"),
        (policy(rule("allow", keyPrefix="agent:mc-"), default="deny"), None),
        (policy(rule("allow", keyPrefix="agent:lead-"), default="deny"), "session.sendPolicy.default"),
        (policy(rule("deny")), "session.sendPolicy.rules[0]"),
        (policy(rule("allow"), rule("DENY ", keyPrefix="agent:MC-")), "session.sendPolicy.rules[1]"),
        (policy(rule("deny", channel="telegram")), None),
        (policy(rule("deny", chatType="group")), None),
        (policy(rule("deny", rawKeyPrefix="agent:mc-")), "session.sendPolicy.rules[0]"),
        (policy(rule("deny", keyPrefix="cron:")), None),
        ({"session": {"sendPolicy": "deny"}}, None),
        ({"session": {"sendPolicy": {"rules": [None, 3, "x"], "default": 7}}}, None),
        (None, None),
    ],
)
def test_a_policy_is_read_as_gateways_read_it(config: Any, place: str | None) -> None:
    denial = denial_of(config, KEY)
    assert (denial and denial.place) == place


def test_doctor_names_a_rule_that_is_about_the_main_agent_alone() -> None:
    config = policy(rule("deny", keyPrefix="agent:mc-gateway"))
    assert [(found.check, "rules[0]" in found.says) for found in check_settings(NEWEST, config)] == [
        ("wakes", True)
    ]


def test_the_cure_fits_an_id_without_a_hyphen() -> None:
    assert '"keyPrefix": "agent:researcher:main"' in str(
        denial_of(policy(default="deny"), "agent:researcher:main")
    )


@pytest.mark.parametrize("strange", [None, [], "global", {"session": "global"}, {"session": {"scope": 3}}])
def test_what_cannot_be_read_is_not_taken_for_a_setting(strange: Any) -> None:
    assert not has_one_session(strange)
    assert not heartbeats_switched_off(NEWEST, strange)
    assert list(check_settings(NEWEST, strange)) == []


def test_doctor_names_each_and_automations_only_where_they_run_heartbeats() -> None:
    config = {"session": {"scope": "global", "sendPolicy": {"default": "deny"}}, "cron": {"enabled": False}}
    newest = [(found.check, found.status) for found in check_settings(NEWEST, config)]
    assert newest == [
        ("sessions", "warning"),
        ("wakes", "warning"),
        ("wakes", "warning"),
        ("heartbeats", "warning"),
    ]
    assert [found.check for found in check_settings(OLDEST, config)] == ["sessions", "wakes", "wakes"]


@pytest.mark.parametrize(
    ("dialect", "agents", "entries", "beat"),
    [
        (OLDEST, {}, {}, ["main"]),
        (OLDEST, {}, {"shop": {}, "main": {}}, ["shop"]),
        (OLDEST, {}, {"shop": {}, "main": {"default": True}}, ["main"]),
        (OLDEST, {"defaults": {"heartbeat": {"every": "1h"}}}, {"main": {}, "shop": {}}, ["main"]),
        (SUMMER, {"defaults": {"heartbeat": {"every": "1h"}}}, {"main": {}, "shop": {}}, ["main", "shop"]),
        (SUMMER, {}, {"main": {}, "shop": {}}, ["main"]),
        (OLDEST, {"defaults": {"heartbeat": {"every": "0m"}}}, {"main": {}}, []),
        (OLDEST, {}, {"main": {}, "shop": {"heartbeat": {}}}, ["shop"]),
        (NEWEST, {}, {}, ["main"]),
        (NEWEST, {}, {"main": {}, "shop": {}}, []),
        (NEWEST, {"defaults": {"systemAgent": {"agentId": "shop"}}}, {"main": {}, "shop": {}}, ["shop"]),
        (NEWEST, {"defaults": {"heartbeat": {"agentId": "shop"}}}, {"main": {}, "shop": {}}, ["shop"]),
        (NEWEST, {"defaults": {"heartbeat": {}}}, {"main": {}, "shop": {}}, ["main", "shop"]),
    ],
)
def test_beating_agents_follow_each_releases_own_rule(
    dialect: Dialect, agents: dict[str, Any], entries: dict[str, Any], beat: list[str]
) -> None:
    assert beating_agents(dialect, {"agents": agents}, entries) == beat
