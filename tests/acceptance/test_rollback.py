"""What a job replaced comes back on a gateway, and stays until it is released (rules.md 50, 51)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from tests.acceptance.test_layers import deliver, put, sync
from tests.acceptance.test_three_sides import NOTE
from tests.acceptance.world import Settled, World
from worker.records.agent_settings import set_settings, unset_settings
from worker.records.template_layers import Layer, revert
from worker.workspace.tokens import verify_token

NAMES = ("SOUL.md", "AGENTS.md")


def contents(world: World, agent: Settled) -> dict[str, str | None]:
    """The agent's files, the token's place marked."""
    token = world.token(agent.openclaw_id)
    assert token is not None
    names = [*NAMES, "IDENTITY.md", *(["TOOLS.md"] if world.release < "2026.8" else [])]
    found = {name: world.read(agent.openclaw_id, name) for name in names}
    return {name: text and text.replace(token, "TOKEN") for name, text in found.items()}


def roll_back(world: World, agent_id: UUID, **options: Any) -> Mapping[str, Any]:
    job = world.ended(world.ask("rollback", agent_id=agent_id, **options))
    assert job["status"] == "succeeded", job["error"]
    return job


def test_a_change_is_taken_back_to_the_byte_and_stays_so(world: World) -> None:
    agent = world.take()
    # Where config writes are limited, the two patches would wait for most of a minute.
    settings = {} if world.real and world.release >= "2026.3" else {"skills": ["cooking"]}
    layer = Layer("agent", str(agent.agent_id), "agent X")
    soul = str(world.read(agent.openclaw_id, "SOUL.md"))
    world.write(agent.openclaw_id, SOUL=soul.replace("- You are useful", f"{NOTE}\n- You are useful"))
    before, entry = contents(world, agent), dict(world.roster()[agent.openclaw_id])
    put(world, layer, "AGENTS.md", "Do as you like.")
    deliver(world, layer, "AGENTS.md")
    world.set_agent(agent.agent_id, identity_profile={"communication_style": "terse"})
    if settings:
        with world.engine.begin() as connection:
            set_settings(connection, "agent", agent.agent_id, settings, locked=False)
    job = sync(world, agent, rotate_tokens=True)
    changed = contents(world, agent)
    assert [name for name in NAMES if changed[name] != before[name]] == list(NAMES)
    assert NOTE in str(changed["SOUL.md"])
    assert world.roster()[agent.openclaw_id].get("skills") == settings.get("skills")

    back = roll_back(world, agent.agent_id, undo_job_id=str(job["id"]))
    assert contents(world, agent) == before
    assert world.roster()[agent.openclaw_id] == entry
    token = world.token(agent.openclaw_id)
    assert token is not None
    assert verify_token(token, world.agent(agent.agent_id)["agent_token_hash"])

    world.proxy.forget()
    held = sync(world, agent)
    assert (held["result"]["files_written"], held["result"]["roster_changes"]) == (0, 0)
    assert any("Held since" in str(warning) for warning in held["warnings"])
    assert world.proxy.count("agents.files.set", "config.patch") == 0
    assert back["result"]["files"]["SOUL.md"]["held"]["job_id"] == str(back["id"])

    with world.engine.begin() as connection:
        for name in settings:
            unset_settings(connection, "agent", agent.agent_id, name)
        revert(connection, layer, "AGENTS.md", by="test")
    assert roll_back(world, agent.agent_id, release=True)["result"]["released"] is True
