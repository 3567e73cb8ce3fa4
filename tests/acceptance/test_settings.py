"""Settings of roster entries: written with one patch, refused before it, and taken back (rules.md 46)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from tests.acceptance.world import Settled, World
from worker.records.agent_settings import set_settings, unset_settings

WRITTEN = {
    "skills": ["gardening", "cooking"],
    "tools.profile": "minimal",
    "tools.deny": ["exec"],
    "sandbox.mode": "off",
    "subagents.allowAgents": ["*"],
}
REFUSED: Mapping[str, tuple[Any, str]] = {
    "skils": (["a"], "knows no setting skils of an agent (it knows skills)"),
    "tools.nosuch": (1, "knows no setting tools.nosuch of an agent"),
    "skills": ("a", "The setting skills must be a list of texts"),
    "sandbox.mode": ("sometimes", 'The setting sandbox.mode must be "off", "non-main" or "all"'),
    "model": ("stub/nothing", 'The gateway has no model "stub/nothing"'),
}


def put(world: World, agents: list[Settled], settings: Mapping[str, Any]) -> None:
    with world.engine.begin() as connection:
        for agent in agents:
            set_settings(connection, "agent", agent.agent_id, settings, locked=False)


def unset(world: World, agents: list[Settled], *fields: str) -> None:
    with world.engine.begin() as connection:
        for agent in agents:
            for field in fields:
                assert unset_settings(connection, "agent", agent.agent_id, field)


def sync(world: World, agents: list[Settled], **options: Any) -> Mapping[str, Any]:
    ids = [str(agent.agent_id) for agent in agents]
    options = {"gateway_id": world.fleet.gateway_id, "include_main": False, "agent_ids": ids, **options}
    return world.ended(world.ask("sync_gateway", **options))


def models(world: World, agent: Settled) -> list[str]:
    """The models that the gateway lists."""
    of_agent = {"agentId": agent.openclaw_id} if world.release >= "2026.8" else {}
    client = world.direct()
    listed = world.wait_for_answer(lambda: client.call("models.list", of_agent))["models"]
    client.close()
    return [f"{each['provider']}/{each['id']}" for each in listed]


def reasons(job: Mapping[str, Any]) -> dict[UUID, str]:
    return {UUID(each["agent_id"]): each["message"] for each in job["result"]["errors"]}


def test_settings_are_one_patch_and_go_without_a_trace(world: World) -> None:
    agents = [world.take(), world.take()]
    before = world.roster()
    model = next(iter(models(world, agents[0])), "stub/m")
    put(world, agents, {"model": model, **WRITTEN})
    world.proxy.forget()
    promise = sync(world, agents, dry_run=True, diff=True)
    assert promise["result"]["roster_changes"] == 2, promise
    assert world.proxy.count("config.patch") == 0
    job = sync(world, agents)
    assert job["status"] == "succeeded", job
    assert world.proxy.count("config.patch") == 1
    for agent in agents:
        assert world.roster()[agent.openclaw_id] == {
            **before[agent.openclaw_id],
            "model": model,
            "skills": WRITTEN["skills"],
            "tools": {"profile": "minimal", "deny": ["exec"]},
            "sandbox": {"mode": "off"},
            "subagents": {"allowAgents": ["*"]},
        }
    world.proxy.forget()
    assert sync(world, agents)["result"]["agents_unchanged"] == 2
    assert world.proxy.count("config.patch", "config.schema", "config.schema.lookup", "models.list") == 0

    unset(world, agents, "model", "tools", "sandbox", "subagents")
    put(world, agents, {"skills": ["cooking"]})
    assert sync(world, agents)["status"] == "succeeded"
    for agent in agents:
        assert world.roster()[agent.openclaw_id] == {**before[agent.openclaw_id], "skills": ["cooking"]}
    unset(world, agents, "skills")
    assert sync(world, agents)["status"] == "succeeded"
    assert world.roster() == before


def test_what_the_release_does_not_take_is_said_before_the_patch(world: World) -> None:
    agent = world.take()
    for field, (value, says) in REFUSED.items():
        if field == "model" and not models(world, agent):
            continue  # the simulated 2026.9.6, which lists none that has no credentials
        put(world, [agent], {field: value})
        for options in ({"dry_run": True}, {}):
            world.proxy.forget()
            job = sync(world, [agent], **options)
            assert says in reasons(job)[agent.agent_id]
            assert world.proxy.count("config.patch") == 0
        unset(world, [agent], field)
