"""Updates, plans and rotation: what changes, what is kept, and that a promise is what the run then does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.world import World
from tests.releases import ON_DEMAND
from worker.workspace.tokens import verify_token

pytestmark = pytest.mark.releases(*ON_DEMAND)

WRITES = ("config.patch", "agents.files.set", "cron.scratch.set", "chat.send", "sessions.reset")


@pytest.fixture(scope="module")
def settled(world: World) -> tuple[UUID, str]:
    """An agent that was provisioned and has settled in: its bootstrap is done, it has written down things."""
    agent = world.take()
    world.set_agent(agent.agent_id, soul_template="I am {{ agent_name }}.")
    world.update(agent.agent_id, wake=False)
    world.write(agent.openclaw_id, USER="About Ada: likes tea.\n", MEMORY="The release is on Friday.\n")
    return agent.agent_id, agent.openclaw_id


def actions(job: Mapping[str, Any]) -> dict[str, str]:
    return {name: report["action"] for name, report in job["result"]["files"].items()}


def test_an_update_of_what_is_equal_writes_nothing_but_wakes(world: World, settled: tuple[UUID, str]) -> None:
    agent_id, openclaw_id = settled
    before, config = world.token(openclaw_id), world.config_path.read_bytes()
    world.proxy.forget()
    job = world.update(agent_id)
    assert job["status"] == "succeeded", job["error"]
    assert world.proxy.count("config.patch", "agents.files.set", "cron.scratch.set", "sessions.reset") == 0
    assert world.proxy.count("chat.send") == 1
    assert world.token(openclaw_id) == before
    assert world.config_path.read_bytes() == config
    assert world.agent(agent_id)["status"] == "online"
    _await_first_run(world, openclaw_id)


def _await_first_run(world: World, openclaw_id: str) -> None:
    """Wait until the run that the wake began has taken BOOTSTRAP.md, on releases where it does: the next test
    would see it go between its plan and its update."""
    files = world.files(openclaw_id)
    if files.dialect.drops_bootstrap:
        look = partial(files.read, ["BOOTSTRAP.md"])
        world.eventually(lambda: "BOOTSTRAP.md" not in world.wait_for_answer(look), "it never ran")
    files.client.close()


def test_a_changed_template_is_promised_written_and_nothing_else(
    world: World, settled: tuple[UUID, str]
) -> None:
    agent_id, openclaw_id = settled
    world.set_agent(agent_id, soul_template="I am {{ agent_name }}, and calm.")
    world.proxy.forget()
    promise = world.update(agent_id, dry_run=True, diff=True)
    assert world.proxy.count(*WRITES) == 0
    assert promise["result"]["dry_run"] is True
    assert promise["result"]["roster"]["action"] == "unchanged"
    assert world.agent(agent_id)["status"] == "online"
    soul = promise["result"]["files"]["SOUL.md"]
    assert (soul["action"], soul["changed_by"]) == ("update", "templates")
    name = world.agent(agent_id)["name"]
    assert f"-I am {name}." in soul["diff"]
    assert f"+I am {name}, and calm." in soul["diff"]
    job = world.update(agent_id, wake=False)
    assert job["status"] == "succeeded", job["error"]
    assert actions(job) == actions(promise)
    written = [params["name"] for method, params in world.proxy.calls if method == "agents.files.set"]
    assert written == ["SOUL.md"]
    assert world.read(openclaw_id, "SOUL.md") == f"I am {name}, and calm."
    assert world.read(openclaw_id, "USER.md") == "About Ada: likes tea.\n"
    assert world.read(openclaw_id, "MEMORY.md") == "The release is on Friday.\n"


def test_who_made_a_file_differ_is_told(world: World, settled: tuple[UUID, str]) -> None:
    agent_id, openclaw_id = settled
    world.write(openclaw_id, IDENTITY="mine now", SOUL="mine now, longer than before")
    world.set_agent(agent_id, soul_template="Changed here as well.")
    promise = world.update(agent_id, dry_run=True)
    files = promise["result"]["files"]
    assert files["IDENTITY.md"]["changed_by"] == "agent"
    assert files["SOUL.md"]["changed_by"] == "both"
    assert (files["USER.md"]["action"], files["USER.md"]["changed_by"]) == ("preserved", "agent")
    world.update(agent_id, wake=False)
    again = world.update(agent_id, dry_run=True)
    assert actions(again).pop("SOUL.md") == "conflict"
    settled_now = world.update(agent_id, wake=False, overwrite_files=["SOUL.md"])
    assert actions(settled_now)["SOUL.md"] == "update"
    again = world.update(agent_id, dry_run=True)
    assert set(actions(again).values()) <= {"unchanged", "preserved", "unsupported"}


def test_overwrite_replaces_and_an_empty_file_is_filled(world: World, settled: tuple[UUID, str]) -> None:
    agent_id, openclaw_id = settled
    world.write(openclaw_id, MEMORY="")
    job = world.update(agent_id, wake=False)
    assert actions(job)["MEMORY.md"] == "update"
    assert actions(job)["USER.md"] == "preserved"
    assert (world.read(openclaw_id, "MEMORY.md") or "").startswith("#")
    job = world.update(agent_id, overwrite=True, wake=False)
    assert actions(job)["USER.md"] == "update"
    assert "Ada Lovelace" in (world.read(openclaw_id, "USER.md") or "")


def test_a_rotation_gives_a_new_token_and_a_plan_shows_none(world: World, settled: tuple[UUID, str]) -> None:
    agent_id, openclaw_id = settled
    before = world.token(openclaw_id)
    assert before is not None
    promise = world.update(agent_id, rotate_tokens=True, dry_run=True, diff=True)
    assert promise["result"]["token"] == "new"
    assert before not in str(promise)
    assert world.token(openclaw_id) == before
    world.proxy.forget()
    job = world.update(agent_id, rotate_tokens=True, wake=False)
    assert (job["status"], job["result"]["token"]) == ("succeeded", "rotated")
    keeps_files_per_session = "2026.2.26" <= world.release < "2026.8"
    assert world.proxy.count("sessions.reset") == keeps_files_per_session
    assert any("session was reset" in warning for warning in job["warnings"]) is keeps_files_per_session
    after = world.token(openclaw_id)
    assert after not in (None, before)
    assert verify_token(str(after), world.agent(agent_id)["agent_token_hash"])
    assert not verify_token(before, world.agent(agent_id)["agent_token_hash"])
    assert world.pending_hash(agent_id) is None


@pytest.mark.model
def test_after_a_rotation_the_next_wake_holds_the_new_credentials_and_not_the_old(world: World) -> None:
    assert world.model is not None
    agent = world.take()
    name = world.agent(agent.agent_id)["name"]
    world.provision(agent.agent_id)
    before = world.token(agent.openclaw_id)
    greeting = f"Hello {name}. Your workspace was just"
    woken = world.model.wait_for(lambda asked: f"{greeting} provisioned" in asked.text, world.timeout_s)
    assert f"AUTH_TOKEN={before}" in woken.text
    job = world.update(agent.agent_id, rotate_tokens=True)
    assert (job["status"], job["result"]["token"]) == ("succeeded", "rotated"), job["error"]
    after = world.token(agent.openclaw_id)
    woken = world.model.wait_for(lambda asked: f"{greeting} updated" in asked.text, world.timeout_s)
    assert f"AUTH_TOKEN={after}" in woken.text
    assert str(before) not in woken.text


def test_without_a_usable_token_an_update_says_so_and_changes_nothing(world: World) -> None:
    agent = world.take()
    agent_id, openclaw_id = agent.agent_id, agent.openclaw_id
    token = str(world.token(openclaw_id))
    carrier = "AGENTS" if world.release >= "2026.8" else "TOOLS"
    text = str(world.read(openclaw_id, f"{carrier}.md"))
    world.set_agent(agent_id, soul_template="New.", heartbeat_config={"every": "20m"})
    world.write(openclaw_id, **{carrier: text.replace(token, "x" * len(token))})
    world.proxy.forget()
    wrong = world.update(agent_id)
    assert wrong["status"] == "failed"
    assert "is not the agent's" in wrong["error"]
    assert "rotate_tokens" in wrong["error"]
    world.write(openclaw_id, **{carrier: "nothing here"})
    missing = world.update(agent_id)
    assert "holds no token" in missing["error"].lower()
    assert world.proxy.count(*WRITES) == 0
    assert world.agent(agent_id)["status"] == "online"
    world.set_agent(agent_id, heartbeat_config=None)
    healed = world.update(agent_id, rotate_tokens=True, wake=False)
    assert healed["status"] == "succeeded", healed["error"]
    assert verify_token(str(world.token(openclaw_id)), world.agent(agent_id)["agent_token_hash"])


def test_an_agent_that_is_not_in_the_roster_is_not_brought_back_by_an_update(world: World) -> None:
    agent_id = world.fleet.add_agent("Never there")
    world.proxy.forget()
    job = world.update(agent_id)
    assert job["status"] == "failed"
    assert "rotate_tokens" in job["error"]
    assert world.proxy.count(*WRITES) == 0
