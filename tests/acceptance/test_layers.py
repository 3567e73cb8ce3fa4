"""Templates of layers on a gateway: delivered once promoted, and taken back (rules.md 49)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.acceptance.world import Settled, World
from worker.records.layer_check import check_layer
from worker.records.template_layers import Layer, add_version, promote, revert, version_of

BASE_URL = "http://127.0.0.1:8000"


def put(world: World, layer: Layer, name: str, body: str, *, plain: bool = False) -> None:
    with world.engine.begin() as connection:
        add_version(connection, layer, name, body, plain=plain, note=None, by="test")


def deliver(world: World, layer: Layer, *names: str) -> None:
    """Check and promote the newest versions."""
    with world.engine.begin() as connection:
        newest = {name: version_of(connection, layer, name) for name in names}
        found = check_layer(connection, layer, newest, BASE_URL)
        assert (found.agents, found.faults) == (1, ())
        promote(connection, layer, {name: each.version for name, each in newest.items()}, by="test")


def sync(world: World, agent: Settled, **options: Any) -> Mapping[str, Any]:
    given = {"gateway_id": world.fleet.gateway_id, "include_main": False, "agent_ids": [str(agent.agent_id)]}
    job = world.ended(world.ask("sync_gateway", **given, **options))
    assert job["status"] == "succeeded", job
    return job


def test_a_layer_reaches_the_gateway_and_goes_without_a_trace(world: World) -> None:
    agent = world.take()
    layer = Layer("agent", str(agent.agent_id), "agent X")
    names = ("SOUL.md", "AGENTS.md", "HEARTBEAT.md")
    carrier = "AGENTS.md" if world.release >= "2026.8" else "TOOLS.md"
    shipped = {name: world.read(agent.openclaw_id, name) for name in ("SOUL.md", "AGENTS.md")}
    token = world.token(agent.openclaw_id)
    put(world, layer, "parts/tone", "calm\n")
    put(world, layer, "SOUL.md", 'I am {{ agent_name }}, {% include "parts/tone" %}.')
    put(world, layer, "AGENTS.md", "Use ${{ secrets.TOKEN }} as it is.", plain=True)
    put(world, layer, "HEARTBEAT.md", "Look around.")
    put(world, layer, "RUNBOOK.md", "Call {{ user_name }}.")
    assert sync(world, agent)["result"]["files_written"] == 0

    deliver(world, layer, "parts/tone", *names, "RUNBOOK.md")
    job = sync(world, agent)
    assert job["result"]["files_written"] == 3
    assert any("does not take RUNBOOK.md" in str(warning) for warning in job["warnings"]), job["warnings"]
    soul = world.read(agent.openclaw_id, "SOUL.md")
    assert soul is not None
    assert soul.startswith("I am Settler ")
    assert soul.endswith(", calm.")
    agents = world.read(agent.openclaw_id, "AGENTS.md")
    assert agents is not None
    assert agents.startswith("Use ${{ secrets.TOKEN }} as it is.")
    assert ("## Tools" in agents) == (carrier == "AGENTS.md")
    assert world.token(agent.openclaw_id) == token
    world.proxy.forget()
    assert sync(world, agent)["result"]["files_written"] == 0
    assert world.proxy.count("agents.files.set", "agents.files.get") == 0

    with world.engine.begin() as connection:
        for name in (*names, "RUNBOOK.md"):
            revert(connection, layer, name, by="test")
    assert sync(world, agent)["result"]["files_written"] == 3
    assert {name: world.read(agent.openclaw_id, name) for name in shipped} == shipped
    assert world.token(agent.openclaw_id) == token


@pytest.mark.model(since="2026.8")
def test_the_agent_reads_what_was_promoted(world: World) -> None:
    assert world.model is not None
    agent = world.take()
    layer = Layer("agent", str(agent.agent_id), "agent X")
    put(world, layer, "SOUL.md", "You are {{ agent_name }}, and keep bees.")
    deliver(world, layer, "SOUL.md")
    job = world.update(agent.agent_id, reset_session=True)
    assert job["status"] == "succeeded", job["error"]
    name = world.agent(agent.agent_id)["name"]
    woken = world.model.wait_for(lambda asked: f"Hello {name}." in asked.text, world.timeout_s)
    assert f"You are {name}, and keep bees." in woken.text
    with world.engine.begin() as connection:
        revert(connection, layer, "SOUL.md", by="test")
