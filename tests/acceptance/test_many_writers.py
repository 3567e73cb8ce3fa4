"""Fifty who ask in the same second, deletes and changes among them, and an outsider who edits meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.acceptance.outsider import KEY, Outsider
from tests.acceptance.world import Settled, World
from tests.benchmarks.bench import AwayClock
from worker.gateway.address import GatewayAddress
from worker.gateway.client import Call, GatewayClient
from worker.gateway.device import DeviceKey
from worker.jobs.retry_policy import inline_retrying
from worker.workspace.tokens import find_token, verify_token

CHANGED, NEW = 20, 50
SLOW = 10, 15
SIMULATED = 8, 12
"""The same on a simulator, where more of them prove nothing more."""
SIMULATED_STAND = 10
"""How many of the large batch are looked at there."""


@dataclass(frozen=True)
class Asked:
    """What came of provisions asked for at once: the agents, what the gateway saw."""

    agents: list[Settled]
    jobs: list[Mapping[str, Any]]
    patches: int
    restarts: int


@pytest.fixture(scope="module")
def two_workers(world: World) -> Iterator[None]:
    """A second worker process beside the first."""
    second = world.start_worker()
    yield
    second.stop()


def provision_at_once(world: World, name: str, number: int) -> Asked:
    agents = [world.fleet.add_agent(f"{name} {n}") for n in range(number)]
    world.proxy.forget()
    with AwayClock(GatewayAddress(world.process.url, world.gateway_token)) as away:
        asked = [world.send(agent, wake=False) for agent in agents]
        jobs = [world.ended(job) for job in asked]
    assert {job["status"] for job in jobs} == {"succeeded"}, [job["error"] for job in jobs]
    settled = [
        Settled(agent, str(job["result"]["openclaw_id"])) for agent, job in zip(agents, jobs, strict=True)
    ]
    return Asked(settled, jobs, world.proxy.count("config.patch"), away.restarts)


def all_stand(world: World, agents: list[Settled]) -> None:
    """All of them are there, also for who looks while a restart of the outsider's is still to come."""
    inline_retrying(30.0, threading.Event())(partial(stand, world, agents))


def stand(world: World, agents: list[Settled]) -> None:
    """Each agent has its entry, its files, and the token that its row verifies."""
    roster, section = world.roster(), world.release >= "2026.8"
    places = [agent.openclaw_id for agent in agents]
    listed = world.answers([Call("agents.files.list", {"agentId": place}) for place in places])
    carriers = world.contents(places, "AGENTS.md" if section else "TOOLS.md")
    for agent, files, carrier in zip(agents, listed, carriers, strict=True):
        assert roster[agent.openclaw_id]["workspace"].endswith(f"/workspace-{agent.openclaw_id}")
        there = {file["name"] for file in files["files"] if not file["missing"]}
        assert {"AGENTS.md", "SOUL.md", "USER.md", "MEMORY.md"} <= there
        token = find_token(carrier, section=section)
        assert token is not None
        assert verify_token(token, world.agent(agent.agent_id)["agent_token_hash"])


def test_a_batch_requested_at_once_from_two_workers_costs_three_config_writes_at_most(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    patches = sum(method == "config.patch" for method, _ in world.large_batch.calls)
    with capsys.disabled():
        cost = f"{patches} patches, {world.large_batch.restarts} restarts"
        print(f"\n{world.release}: {world.large_batch.size} provisions, {cost}")
    assert 1 <= patches <= 3
    assert world.large_batch.restarts <= patches
    all_stand(world, world.many if world.real else world.many[:SIMULATED_STAND])


def test_deletes_changes_and_an_outsider_in_between_lose_nothing(
    world: World, two_workers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, provisions = (CHANGED, NEW) if world.real else SIMULATED
    if world.is_slow:
        changes, provisions = SLOW
    deleted = world.to_delete
    changed = {agent: f"{n}m" for n, agent in enumerate(world.many[:changes], start=30)}
    for agent, every in changed.items():
        world.set_agent(agent.agent_id, heartbeat_config={"every": every})
    gateway_id = str(world.fleet.gateway_id)
    # Old releases restart at each patch, or allow three a minute.
    often = not world.real or world.release >= "2026.8"
    client = GatewayClient(GatewayAddress(world.process.url, world.gateway_token), DeviceKey.generate())
    with Outsider(client, 1.0 if often else 25.0) as outsider:
        asked = [world.send(agent.agent_id, "delete_agent") for agent in deleted]
        asked += [
            world.ask("sync_heartbeats", gateway_id=gateway_id, agent_ids=[str(agent.agent_id)])
            for agent in changed
        ]
        new = provision_at_once(world, "New", provisions)
        jobs = [world.ended(job) for job in asked]
        world.eventually(lambda: outsider.value, "the outsider never got through")
    with capsys.disabled():
        cost = f"{new.patches} patches, {new.restarts} restarts, beside {outsider.value} edits of an outsider"
        done = f"{provisions} provisions, {len(deleted)} deletes, {changes} heartbeats"
        print(f"\n{world.release}: {done}: {cost}")
    assert {job["status"] for job in jobs} == {"succeeded"}, [job["error"] for job in jobs]
    roster = world.roster()
    assert not {agent.openclaw_id for agent in deleted} & set(roster)
    for agent, every in changed.items():
        assert roster[agent.openclaw_id]["heartbeat"]["every"] == every
    assert {agent.openclaw_id for agent in world.many} <= set(roster)
    all_stand(world, new.agents)
    assert outsider.raced == 0
    assert world.config()["agents"]["defaults"][KEY] >= outsider.value
    assert "owners-bot" in roster
