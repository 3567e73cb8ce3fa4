"""What an agent wrote into its files stays there, beside what we change (rules.md 47)."""

from __future__ import annotations

import pytest

from tests.acceptance.world import World
from worker.records.agent_settings import set_settings, unset_settings
from worker.workspace.tokens import verify_token

NOTE = "- You never call Ada before nine."


def test_an_agents_own_lines_outlive_updates_and_a_rotation(world: World) -> None:
    agent = world.take()
    section = world.release >= "2026.8"
    carrier = "AGENTS.md" if section else "TOOLS.md"
    soul, held = str(world.read(agent.openclaw_id, "SOUL.md")), str(world.read(agent.openclaw_id, carrier))
    noted = soul.replace("- You are useful", f"{NOTE}\n- You are useful")
    assert noted != soul
    files = {"SOUL": noted, carrier.removesuffix(".md"): f"{held}\n\n## Mine\n\n{NOTE}\n"}
    world.write(agent.openclaw_id, **files)
    world.set_agent(agent.agent_id, identity_profile={"communication_style": "terse"})

    job = world.update(agent.agent_id, wake=False, rotate_tokens=True)
    assert job["status"] == "succeeded", job["error"]
    actions = {name: file["action"] for name, file in job["result"]["files"].items()}
    assert (actions["SOUL.md"], actions[carrier]) == ("merge", "update")
    now = str(world.read(agent.openclaw_id, "SOUL.md"))
    assert NOTE in now
    assert "- Style: terse" in now
    after = str(world.read(agent.openclaw_id, carrier))
    assert after.endswith(f"\n\n## Mine\n\n{NOTE}\n")
    token = world.token(agent.openclaw_id)
    assert token is not None
    assert token not in held
    assert after.count(f"AUTH_TOKEN={token}") == after.count("AUTH_TOKEN=") == 1
    assert verify_token(token, world.agent(agent.agent_id)["agent_token_hash"])

    again = world.update(agent.agent_id, wake=False)
    assert {file["action"] for file in again["result"]["files"].values()} <= {
        "unchanged",
        "preserved",
        "unsupported",
    }

    world.write(agent.openclaw_id, SOUL=now.replace("- Style: terse", "- Style: ornate"))
    world.set_agent(agent.agent_id, identity_profile={"communication_style": "chatty"})
    clash = world.update(agent.agent_id, wake=False)
    assert clash["result"]["files"]["SOUL.md"]["action"] == "conflict"
    assert any("--keep-file SOUL.md" in warning for warning in clash["warnings"])
    settled = world.update(agent.agent_id, wake=False, overwrite_files=["SOUL.md"])
    assert settled["result"]["files"]["SOUL.md"]["action"] == "update"
    assert "- Style: chatty" in str(world.read(agent.openclaw_id, "SOUL.md"))


@pytest.mark.model
def test_the_next_run_uses_the_model_that_was_set_and_reads_the_agents_own_lines(world: World) -> None:
    assert world.model is not None
    agent = world.take()
    soul = str(world.read(agent.openclaw_id, "SOUL.md"))
    world.write(agent.openclaw_id, SOUL=soul.replace("- You are useful", f"{NOTE}\n- You are useful"))
    world.set_agent(agent.agent_id, identity_profile={"communication_style": "terse"})
    with world.engine.begin() as connection:
        set_settings(connection, "agent", agent.agent_id, {"model": "stub/n"}, locked=False)
    job = world.update(agent.agent_id, reset_session=True)
    assert job["status"] == "succeeded", job["error"]
    hello = f"Hello {world.agent(agent.agent_id)['name']}."
    run = world.model.wait_for(lambda asked: hello in asked.text, world.timeout_s)
    assert run.body["model"] == "n"
    assert NOTE in run.text
    assert "- Style: terse" in run.text
    with world.engine.begin() as connection:
        assert unset_settings(connection, "agent", agent.agent_id, "model")
