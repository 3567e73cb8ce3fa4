"""What a gateway tells of an agent's settings, and the patch that shortens a list (gateways.md 14)."""

from __future__ import annotations

from typing import Any

from tests.conformance.conftest import Target
from tests.conformance.peer import Peer
from tests.conformance.steps import patch, patched, registering, roster
from worker.gateway.setting_schema import accepts, described, keys_at, schema_at

SHAPES: list[tuple[str, Any, Any]] = [
    ("model", "a/b", 5),
    ("model.fallbacks", ["a/b"], "a/b"),
    ("skills", ["a"], [1]),
    ("tools.profile", "minimal", "smallest"),
    ("tools.deny", [], {}),
    ("sandbox.mode", "off", True),
    ("sandbox.docker.env.ANY", "text", 1),
    ("sandbox.docker.pidsLimit", 5, 0),
    ("subagents.allowAgents", ["*"], "*"),
]


def test_the_schema_tells_what_an_agents_settings_may_be(target: Target, peer: Peer) -> None:
    agents = peer.ask("config.schema")["schema"]["properties"]["agents"]["properties"]
    is_map = target.expected.roster_is_map
    entry = agents["entries"]["additionalProperties"] if is_map else agents["list"]["items"]
    for field, good, bad in SHAPES:
        schema = schema_at(entry, field.split("."))
        assert schema is not None, field
        assert accepts(schema, good), field
        assert not accepts(schema, bad), field
        assert described(schema) != "something else", field
    for field in ("nosuch", "tools.nosuch", "model.nosuch"):
        assert schema_at(entry, field.split(".")) is None, field
    assert {"model", "skills", "tools", "sandbox", "subagents"} <= set(keys_at(entry, []))


def test_a_setting_is_looked_up_where_the_roster_is_a_map(target: Target, peer: Peer) -> None:
    if not target.expected.roster_is_map:
        return
    for field, good, bad in SHAPES:
        schema = peer.ask("config.schema.lookup", {"path": f"agents.entries.*.{field}"})["schema"]
        assert accepts(schema, good), field
        assert not accepts(schema, bad), field
    for field in ("nosuch", "tools.nosuch"):
        answer = peer.call("config.schema.lookup", {"path": f"agents.entries.*.{field}"})
        assert answer.message == "config schema path not found"
    tools = peer.ask("config.schema.lookup", {"path": "agents.entries.*.tools"})
    assert {"profile", "allow", "deny"} <= {child["key"] for child in tools["children"]}


def test_models_are_listed_by_provider_and_id(target: Target, peer: Peer) -> None:
    agents = list(roster(target, peer.ask("config.get")["parsed"]))
    params = {"agentId": agents[0]} if agents and target.expected.roster_is_map else {}
    models = peer.ask("models.list", params)["models"]
    assert all({"provider", "id"} <= model.keys() for model in models)


def test_a_list_is_shortened_only_where_the_patch_says_so(target: Target, peer: Peer) -> None:
    if not target.expected.roster_is_map:
        return
    agent = {"name": "listed", "workspace": str(target.state_dir / "ws-listed"), "skills": ["a", "b"]}
    patched(target, peer, registering(target, peer.ask("config.get")["parsed"], {"listed": agent}))
    path = "agents.entries.listed.skills"
    shorter = {"agents": {"entries": {"listed": {"skills": ["a"]}}}}
    assert f"would remove entries from array path(s): {path}." in patch(peer, shorter).message
    longer = {"agents": {"entries": {"listed": {"skills": ["a", "b", "c"]}}}}
    assert patch(peer, longer).ok
    elsewhere = "agents.entries.listed.tools.deny"  # which is not there
    assert patch(peer, shorter, replacePaths=[path, elsewhere]).ok
    gone = {"agents": {"entries": {"listed": {"skills": None}}}}
    assert path in patch(peer, gone).message
    assert patch(peer, gone, replacePaths=[path]).ok
    assert "skills" not in roster(target, peer.ask("config.get")["parsed"])["listed"]
