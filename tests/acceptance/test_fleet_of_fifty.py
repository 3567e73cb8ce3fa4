"""Fifty agents at once: adopted, set, edited by hand, and given templates (rules.md 46 to 49).

On a real gateway by ``--fifty`` alone, because it takes minutes there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.acceptance.test_layers import put
from tests.acceptance.test_settings import models
from tests.acceptance.world import Settled, World
from worker.records.agent_settings import set_settings, unset_settings
from worker.records.layer_check import check_layer
from worker.records.template_layers import Layer, promote, version_of
from worker.workspace.tokens import verify_token

pytestmark = [pytest.mark.last, pytest.mark.fifty]
FIFTY, SIMULATED = 50, 20
FIRST = "# Soul\n\nYou are {{ agent_name }}.\n\nBe brief.\n\nBe kind.\n"
SECOND = FIRST.replace("Be kind.", "Be kind, and give reasons.")
NOTE = "You never call Ada before nine."


def fleet_size(world: World) -> int:
    """Fifty; fewer on a simulator, where more of them prove nothing more."""
    return FIFTY if world.real else SIMULATED


def those_left(world: World) -> list[Settled]:
    """The many that no test before has deleted."""
    roster = world.roster()
    with world.engine.connect() as connection:
        rows = {row.id for row in connection.execute(text("SELECT id FROM agents"))}
    return [each for each in world.many if each.openclaw_id in roster and each.agent_id in rows]


def entries(world: World, ids: Sequence[str]) -> dict[str, Any]:
    roster = world.roster()
    return {each: roster[each] for each in ids}


def register(world: World, ids: Sequence[str]) -> None:
    """What an owner does who brings up agents of his own."""
    folder = world.config_path.parent / "owners"
    made = [{"id": each, "name": f"Own {each}", "workspace": str(folder / each)} for each in ids]
    for each in made:
        workspace = folder / each["id"]
        workspace.mkdir(parents=True)
        (workspace / "SOUL.md").write_text(f"I am {each['id']}, and my owner's.")
        (workspace / "MEMORY.md").write_text("The release is on Friday.")
    client = world.direct()
    config = client.call("config.get")
    agents: Any
    if world.release >= "2026.8":
        agents = {"entries": {each.pop("id"): each for each in made}}
    else:
        agents = {"list": [*config["config"]["agents"]["list"], *made]}
    raw = json.dumps({"agents": agents})
    client.call("config.patch", {"raw": raw, "baseHash": config["hash"]}, deadline_s=60)
    client.close()
    world.eventually(lambda: set(ids) <= set(world.roster()), "the owner's agents are not there")


def test_fifty_agents_of_an_owner_are_adopted_and_only_their_tokens_are_written(world: World) -> None:
    ids = [f"own-{n:02}" for n in range(fleet_size(world))]
    register(world, ids)
    world.wait_for_answer(lambda: world.contents(ids[-1:], "SOUL.md"))
    before, board = entries(world, ids), world.fleet.add_board("Adopted")
    world.proxy.forget()
    ask = {"gateway_id": world.fleet.gateway_id, "board_id": board, "dry_run": False}
    asked = [world.ask("adopt_agent", openclaw_id=each, **ask) for each in ids]
    jobs = [world.ended(job, 600) for job in asked]
    assert {job["status"] for job in jobs} == {"succeeded"}, [job["error"] for job in jobs]
    calls = Counter(method for method, _ in world.proxy.calls)
    assert calls["agents.files.set"] == len(ids)
    assert not {"config.patch", "sessions.reset", "sessions.patch", "chat.send"} & set(calls)
    assert entries(world, ids) == before
    assert world.contents(ids, "SOUL.md") == [f"I am {each}, and my owner's." for each in ids]
    for each, job in zip(ids, jobs, strict=True):
        row = world.agent(UUID(job["result"]["agent_id"]))
        assert verify_token(str(world.token(each)), row["agent_token_hash"])

    _set_a_model(world, board, ids, before)
    with world.engine.begin() as connection:
        connection.execute(text("DELETE FROM provisioner.agent_places WHERE openclaw_id LIKE 'own-%'"))
        connection.execute(text("DELETE FROM agents WHERE board_id = :board"), {"board": board})


def _set_a_model(world: World, board: UUID, ids: Sequence[str], before: Mapping[str, Any]) -> None:
    """A model for their board is one patch, and its unset is another that leaves no trace."""
    listed = models(world, Settled(UUID(int=0), ids[0]))
    field, value = ("model", listed[0]) if listed else ("skills", ["gardening"])
    with world.engine.begin() as connection:
        set_settings(connection, "board", board, {field: value}, locked=False)
    assert _sync_counting_patches(world, board) == 1
    assert all(entry[field] == value for entry in entries(world, ids).values())
    with world.engine.begin() as connection:
        assert unset_settings(connection, "board", board, field)
    assert _sync_counting_patches(world, board) == 1
    assert entries(world, ids) == before


def _sync_counting_patches(world: World, board: UUID) -> int:
    world.proxy.forget()
    job = world.ended(
        world.ask("sync_gateway", gateway_id=world.fleet.gateway_id, board_id=board, include_main=False), 600
    )
    assert job["status"] == "succeeded", job
    return world.proxy.count("config.patch")


def _sync(world: World, agents: Sequence[Settled]) -> tuple[Mapping[str, Any], dict[UUID, Mapping[str, Any]]]:
    ids = [str(agent.agent_id) for agent in agents]
    ask = {"gateway_id": world.fleet.gateway_id, "include_main": False, "agent_ids": ids}
    job = world.ended(world.ask("sync_gateway", **ask), 600)
    with world.engine.connect() as connection:
        rows = connection.execute(_SOULS, {"job": job["id"]})
        return job, {row.agent_id: row.soul for row in rows}


_SOULS = text("SELECT agent_id, files -> 'SOUL.md' AS soul FROM provisioner.job_agents WHERE job_id = :job")


def test_of_fifty_ten_are_edited_by_hand_and_one_template_changes(world: World) -> None:
    agents = those_left(world)[: fleet_size(world)]
    layer = Layer("gateway", str(world.fleet.gateway_id), "gateway X")
    put(world, layer, "SOUL.md", FIRST)
    _promote(world, layer)
    _sync(world, agents)
    mine, clashes = agents[:5], agents[5:10]
    for agent in mine:
        soul = str(world.read(agent.openclaw_id, "SOUL.md"))
        world.write(agent.openclaw_id, SOUL=soul.replace("Be brief.", f"Be brief. {NOTE}"))
    for agent in clashes:
        soul = str(world.read(agent.openclaw_id, "SOUL.md"))
        world.write(agent.openclaw_id, SOUL=soul.replace("Be kind.", NOTE))
    put(world, layer, "SOUL.md", SECOND)
    _promote(world, layer)
    job, souls = _sync(world, agents)
    actions = {agent.openclaw_id: souls[agent.agent_id]["action"] for agent in agents}
    assert Counter(actions.values()) == {"update": len(agents) - 10, "merge": 5, "conflict": 5}, job
    texts = dict(zip(actions, world.contents([*actions], "SOUL.md"), strict=True))
    assert all(NOTE in texts[agent.openclaw_id] for agent in (*mine, *clashes))
    for openclaw_id, soul in texts.items():
        assert ("give reasons" in soul) == (actions[openclaw_id] != "conflict")
    again, _ = _sync(world, agents)
    assert again["result"]["files_written"] == 0


def test_a_layer_that_fails_for_one_of_fifty_is_not_promoted(world: World) -> None:
    wordy = those_left(world)[7].agent_id
    world.set_agent(wordy, identity_profile={"custom_instructions": "x" * 20_000})
    layer = Layer("gateway", str(world.fleet.gateway_id), "gateway X")
    put(world, layer, "SOUL.md", "{{ identity_custom_instructions }}\n" * 20)
    with world.engine.connect() as connection:
        newest = version_of(connection, layer, "SOUL.md")
        found = check_layer(connection, layer, {"SOUL.md": newest}, "http://127.0.0.1:8000")
    world.set_agent(wordy, identity_profile=None)
    assert [(fault.agent_id, "its rendering is longer" in fault.says) for fault in found.faults] == [
        (wordy, True)
    ]
    assert found.agents >= fleet_size(world) - 1


def _promote(world: World, layer: Layer) -> None:
    with world.engine.begin() as connection:
        newest = version_of(connection, layer, "SOUL.md")
        promote(connection, layer, {"SOUL.md": newest.version}, by="test")
