"""One life of two agents on one gateway, in this order: provision, update, sync, rotate, delete.

What a job claims is compared with what lies on the gateway's disk and in Mission Control's rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from models import Agent
from tests.acceptance.world import World
from tests.releases import ON_DEMAND
from tests.smoke.conftest import Unfinished
from tests.smoke.owner import OWNERS_AGENTS
from worker.errors import ProvisionerError
from worker.lab.simulator import Simulator
from worker.workspace.tokens import find_token, verify_token

pytestmark = pytest.mark.releases(*ON_DEMAND)

JOB_S = 60.0


@dataclass
class SmokeAgent:
    """An agent of ours; ``workspace`` is its folder on the gateway's disk."""

    agent_id: UUID
    openclaw_id: str
    workspace: Path
    token: str = field(repr=False)


@dataclass
class SmokeFleet:
    """The lead and the member that all tests share, and the owner's part of the config before them."""

    world: World
    owners: Mapping[str, Any]
    lead: SmokeAgent
    member: SmokeAgent
    provisions: list[Mapping[str, Any]]


@pytest.fixture(scope="module")
def smoke_fleet(world: World) -> SmokeFleet:
    owners = _owners_part(world.config())
    ids = [world.fleet.add_agent("Grace", lead=True), world.fleet.add_agent("Ada")]
    main = world.ask("provision_gateway_main", gateway_id=world.fleet.gateway_id, wake=False)
    rows = [_done(world, job) for job in [*(world.send(agent) for agent in ids), main]]
    lead, member = (_player(world, agent, row) for agent, row in zip(ids, rows, strict=False))
    return SmokeFleet(world, owners, lead, member, rows[:2])


def test_provision_registers_writes_and_wakes(smoke_fleet: SmokeFleet) -> None:
    for smoke_agent, job in zip((smoke_fleet.lead, smoke_fleet.member), smoke_fleet.provisions, strict=True):
        world, result = smoke_fleet.world, job["result"]
        entry = _roster(world.config())[smoke_agent.openclaw_id]
        agent = world.agent(smoke_agent.agent_id)
        assert (entry["name"], entry["workspace"]) == (agent["name"], result["workspace_path"])
        assert entry["heartbeat"]["every"] == "10m"
        delivered = [name for name, file in result["files"].items() if file["action"] in ("create", "update")]
        assert {"AGENTS.md", "SOUL.md", "IDENTITY.md", "USER.md", "MEMORY.md"} <= set(delivered)
        for name in set(delivered) - {"BOOTSTRAP.md", "HEARTBEAT.md"}:  # the first run may delete the former
            assert (smoke_agent.workspace / name).read_text().strip(), name
        assert agent["name"] in (smoke_agent.workspace / "IDENTITY.md").read_text()
        assert verify_token(smoke_agent.token, agent["agent_token_hash"])
        assert agent["status"] == "online"
        assert result["woken"] is True
        assert world.row(job["id"])["woken_at"] is not None
        assert agent["openclaw_session_id"] in _sessions(world)
    assert _owners_part(smoke_fleet.world.config()) == smoke_fleet.owners


def test_update_writes_what_changed_and_keeps_what_the_agent_wrote(smoke_fleet: SmokeFleet) -> None:
    world, member = smoke_fleet.world, smoke_fleet.member
    (member.workspace / "MEMORY.md").write_text("The release is on Friday.\n")
    world.set_agent(member.agent_id, soul_template="I am {{ agent_name }}, and calm.")
    job = _done(world, world.send(member.agent_id, "update_agent", wake=False))
    changed = {name for name, file in job["result"]["files"].items() if file["action"] == "update"}
    assert changed == {"SOUL.md"}
    assert (member.workspace / "SOUL.md").read_text() == "I am Ada, and calm."
    assert (member.workspace / "MEMORY.md").read_text() == "The release is on Friday.\n"
    assert _token(member) == member.token


def test_sync_brings_all_agents_to_their_rows(smoke_fleet: SmokeFleet) -> None:
    world = smoke_fleet.world
    world.set_agent(smoke_fleet.member.agent_id, heartbeat_config={"every": "35m"})
    world.set_agent(smoke_fleet.lead.agent_id, soul_template="I lead, says {{ agent_name }}.")
    job = _done(world, world.ask("sync_gateway", gateway_id=world.fleet.gateway_id))
    result = job["result"]
    assert (result["agents_updated"], result["main_updated"], result["errors"]) == (2, True, [])
    assert _roster(world.config())[smoke_fleet.member.openclaw_id]["heartbeat"]["every"] == "35m"
    assert (smoke_fleet.lead.workspace / "SOUL.md").read_text() == "I lead, says Grace."
    assert (smoke_fleet.member.workspace / "MEMORY.md").read_text() == "The release is on Friday.\n"
    assert [_token(smoke_agent) for smoke_agent in (smoke_fleet.lead, smoke_fleet.member)] == [
        smoke_fleet.lead.token,
        smoke_fleet.member.token,
    ]
    again = _done(world, world.ask("sync_gateway", gateway_id=world.fleet.gateway_id, dry_run=True))
    assert (again["result"]["agents_unchanged"], again["result"]["files_written"]) == (2, 0)


def test_rotation_replaces_the_token(smoke_fleet: SmokeFleet) -> None:
    world, member = smoke_fleet.world, smoke_fleet.member
    job = _done(world, world.send(member.agent_id, "update_agent", rotate_tokens=True))
    assert job["result"]["token"] == "rotated"
    assert job["result"]["woken"] is True
    token, hash_ = _token(member), world.agent(member.agent_id)["agent_token_hash"]
    assert token != member.token
    assert verify_token(token, hash_)
    assert not verify_token(member.token, hash_)
    assert world.pending_hash(member.agent_id) is None
    assert verify_token(_token(smoke_fleet.lead), world.agent(smoke_fleet.lead.agent_id)["agent_token_hash"])


def test_delete_removes_the_agent_and_nothing_else(smoke_fleet: SmokeFleet) -> None:
    world, member = smoke_fleet.world, smoke_fleet.member
    key = world.agent(member.agent_id)["openclaw_session_id"]
    _await_the_end_of_its_run(world, key)
    before = _roster(world.config())
    job = _done(world, world.send(member.agent_id, "delete_agent"))
    assert job["result"]["removed"] is True
    after = _roster(world.config())
    assert after == {name: entry for name, entry in before.items() if name != member.openclaw_id}
    assert smoke_fleet.lead.openclaw_id in after
    assert not (member.workspace / "SOUL.md").exists()
    assert (smoke_fleet.lead.workspace / "SOUL.md").exists()
    assert key not in _sessions(world)
    assert _owners_part(world.config()) == smoke_fleet.owners
    assert _agents_on_record(world) >= {smoke_fleet.lead.agent_id}
    assert member.agent_id not in _agents_on_record(world)


def _done(world: World, job_id: UUID) -> Mapping[str, Any]:
    """The row of a job that succeeded. Raises ``Unfinished`` for any other end, and for none in time."""
    until = time.monotonic() + JOB_S
    while (row := world.job(job_id)) is None or row["status"] in ("queued", "running"):
        if time.monotonic() > until:
            raise Unfinished(f"job {job_id} did not end: {row}\n{world.workers[-1].log()[-3000:]}")
        time.sleep(0.1)
    if row["status"] != "succeeded":
        raise Unfinished(f"{row['kind']} {row['status']}: {row['error']}\n{world.workers[-1].log()[-3000:]}")
    return row


def _player(world: World, agent_id: UUID, job: Mapping[str, Any]) -> SmokeAgent:
    openclaw_id = str(job["result"]["openclaw_id"])
    if isinstance(world.process, Simulator):
        workspace = world.process.workspace(openclaw_id)
    else:
        workspace = Path(job["result"]["workspace_path"])
    return SmokeAgent(agent_id, openclaw_id, workspace, _token_in(workspace))


def _token(smoke_agent: SmokeAgent) -> str:
    return _token_in(smoke_agent.workspace)


def _token_in(workspace: Path) -> str:
    """The agent's token as it stands on the gateway's disk, in the one file that carries it."""
    found = [
        token
        for name in ("AGENTS.md", "TOOLS.md")
        if (workspace / name).exists()
        and (token := find_token((workspace / name).read_text(), section=name == "AGENTS.md"))
    ]
    assert len(found) == 1, f"{len(found)} tokens in {workspace}"
    return found[0]


def _await_the_end_of_its_run(world: World, key: str) -> None:
    """Until the run that woke the agent is over, where the release tells: a run that begins late, on a busy
    machine, lays out the workspace anew, deleted or not."""
    world.eventually(
        lambda: _sessions(world).get(key) not in ("queued", "running"), f"the run of {key} does not end", 60
    )


def _sessions(world: World) -> dict[str, object]:
    """The status of each session's last run by the session's key, None where the release tells none."""
    client = world.direct()
    try:
        listed = world.wait_for_answer(lambda: client.call("sessions.list", {}, deadline_s=30))["sessions"]
    except ProvisionerError as error:
        raise Unfinished(str(error)) from error
    finally:
        client.close()
    return {str(session.get("key")): session.get("status") for session in listed}


def _agents_on_record(world: World) -> set[UUID]:
    with world.engine.connect() as connection:
        return set(connection.execute(select(Agent.id)).scalars())


def _roster(config: Mapping[str, Any]) -> dict[str, Any]:
    agents = config["agents"]
    entries: dict[str, Any] = agents.get("entries") or {entry["id"]: entry for entry in agents["list"]}
    return entries


def _owners_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """What no job of ours may change; a release may add defaults of its own elsewhere."""
    entries = _roster(config)
    return {
        "agents": {name: entries.get(name) for name in OWNERS_AGENTS},
        "gateway": config["gateway"],
        "providers": config["models"]["providers"],
    }
