"""Delete, move, lead, main and heartbeats: the rest of an agent's life."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from tests.acceptance.world import World
from worker.workspace.credentials import verify_token


def count(world: World, statement: str, **values: object) -> int:
    with world.engine.connect() as connection:
        return int(connection.execute(text(statement), values).scalar_one())


def test_a_deleted_agent_is_gone_everywhere_and_again_succeeds(world: World) -> None:
    agent_id = world.fleet.add_agent("Short lived")
    [job] = world.provision(agent_id, wake=False)
    openclaw_id = job["result"]["openclaw_id"]
    deleted = world.ended(world.send(agent_id, "delete_agent"))
    assert deleted["status"] == "succeeded", deleted["error"]
    assert deleted["result"] == {
        "openclaw_id": openclaw_id,
        "workspace_path": job["result"]["workspace_path"],
        "removed": True,
    }
    assert openclaw_id not in world.roster()
    assert "owners-bot" in world.roster()
    assert count(world, "SELECT count(*) FROM agents WHERE id = :id", id=agent_id) == 0
    again = world.ended(world.send(agent_id, "delete_agent"))
    assert (again["status"], again["result"]["removed"]) == ("succeeded", False)
    late = world.update(agent_id)
    assert (late["status"], late["error"]) == ("failed", f"There is no agent with agent_id {agent_id}.")


def test_what_nobody_knows_is_deleted_with_a_warning(world: World) -> None:
    job = world.ended(world.send(uuid4(), "delete_agent"))
    assert job["status"] == "succeeded"
    assert "Nothing is known" in job["warnings"][0]


def test_an_agent_deleted_by_hand_on_the_gateway_is_deleted_here(world: World) -> None:
    agent_id = world.fleet.add_agent("Half gone")
    [job] = world.provision(agent_id, wake=False)
    client = world.direct()
    client.call("agents.delete", {"agentId": job["result"]["openclaw_id"]})
    client.close()
    deleted = world.ended(world.send(agent_id, "delete_agent"))
    assert (deleted["status"], deleted["result"]["removed"]) == ("succeeded", False)


def test_a_row_that_is_referenced_names_the_constraint_and_can_be_deleted_later(world: World) -> None:
    agent_id = world.fleet.add_agent("Referenced")
    world.provision(agent_id, wake=False)
    with world.engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS work (agent_id uuid REFERENCES agents (id))"))
        connection.execute(text("INSERT INTO work VALUES (:id)"), {"id": agent_id})
    job = world.ended(world.send(agent_id, "delete_agent"))
    assert job["status"] == "failed"
    assert "work_agent_id_fkey" in job["error"]
    assert world.agent(agent_id)["status"] == "online"
    with world.engine.begin() as connection:
        connection.execute(text("DROP TABLE work"))
    again = world.ended(world.send(agent_id, "delete_agent"))
    assert again["status"] == "succeeded", again["error"]


def test_a_gateways_main_agent_is_made_once_and_provisioned(world: World) -> None:
    jobs = [world.ask("provision_gateway_main", gateway_id=world.fleet.gateway_id, wake=False)]
    jobs.append(world.ask("provision_gateway_main", gateway_id=world.fleet.gateway_id, wake=False))
    rows = [world.ended(job) for job in jobs]
    assert [row["status"] for row in rows] == ["succeeded"] * 2, [row["error"] for row in rows]
    agents = {row["result"]["agent_id"] for row in rows}
    assert len(agents) == 1
    main = world.agent(UUID(agents.pop()))
    gateway = world.fleet.gateway_id
    assert main["name"] == "workshop Gateway Agent"
    assert (main["board_id"], main["is_board_lead"], main["status"]) == (None, False, "online")
    assert main["openclaw_session_id"] == f"agent:mc-gateway-{gateway}:main"
    entry = world.roster()[f"mc-gateway-{gateway}"]
    assert entry["workspace"].endswith(f"/workspace-gateway-{gateway}")
    token = world.token(f"mc-gateway-{gateway}")
    assert verify_token(str(token), main["agent_token_hash"])
    assert "gateway" in str(world.read(f"mc-gateway-{gateway}", "AGENTS.md")).lower()


def test_two_who_ensure_a_lead_at_once_make_one(world: World) -> None:
    board = world.fleet.add_board("Leaderless")
    jobs = [
        world.ask(
            "ensure_board_lead", board_id=board, agent_name="Grace", identity_profile={"emoji": ":owl:"}
        )
        for _ in range(2)
    ]
    rows = [world.ended(job) for job in jobs]
    assert [row["status"] for row in rows] == ["succeeded"] * 2, [row["error"] for row in rows]
    assert sorted(row["result"]["created"] for row in rows) == [False, True]
    assert len({row["result"]["agent_id"] for row in rows}) == 1
    provision = world.ended(UUID(rows[0]["result"]["provision_job_id"]))
    assert provision["status"] == "succeeded", provision["error"]
    assert count(world, "SELECT count(*) FROM agents WHERE board_id = :id", id=board) == 1
    lead = world.agent(UUID(rows[0]["result"]["agent_id"]))
    assert (lead["name"], lead["is_board_lead"], lead["status"]) == ("Grace", True, "online")
    assert lead["identity_profile"]["role"] == "Board Lead"
    assert lead["identity_profile"]["emoji"] == ":owl:"
    assert f"lead-{board}" in world.roster()


def test_heartbeats_of_many_are_one_config_change(world: World) -> None:
    agents = [world.fleet.add_agent(f"Beating {n}") for n in range(3)]
    jobs = world.provision(*agents, wake=False)
    for agent_id in agents:
        world.set_agent(agent_id, heartbeat_config={"every": "25m"})
    world.door.forget()
    job = world.ended(
        world.ask("sync_heartbeats", gateway_id=world.fleet.gateway_id, agent_ids=[str(a) for a in agents])
    )
    assert job["status"] == "succeeded", job["error"]
    assert world.door.count("config.patch") == 1
    for done in jobs:
        assert world.roster()[done["result"]["openclaw_id"]]["heartbeat"]["every"] == "25m"
    world.door.forget()
    none = world.ended(world.ask("sync_heartbeats", gateway_id=world.fleet.gateway_id, agent_ids=[]))
    assert none["status"] == "succeeded"
    assert world.door.count("config.patch", "config.get") == 0


def test_a_lead_that_moves_to_another_board_leaves_its_old_id(world: World) -> None:
    first, second = world.fleet.add_board("First"), world.fleet.add_board("Second")
    agent_id = world.fleet.add_agent("Mover", lead=True, board_id=first)
    world.provision(agent_id, wake=False)
    assert f"lead-{first}" in world.roster()
    world.set_agent(agent_id, board_id=second)
    [job] = world.provision(agent_id, wake=False)
    assert job["warnings"] == []
    roster: Mapping[str, Any] = world.roster()
    assert f"lead-{second}" in roster
    assert f"lead-{first}" not in roster
    assert verify_token(str(world.token(f"lead-{second}")), world.agent(agent_id)["agent_token_hash"])
