"""The owner's agents come under care as they are: only their token is written (rules.md 48)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tests.acceptance.world import World
from worker.workspace.tokens import find_token, verify_token


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}


def test_an_owners_agent_is_taken_under_care_and_only_its_token_is_written(world: World) -> None:
    section_in = "AGENTS.md" if world.release >= "2026.8" else "TOOLS.md"
    client = world.direct()
    listed = world.wait_for_answer(lambda: client.call("agents.files.list", {"agentId": "owners-bot"}))
    folder = Path(str(listed["workspace"]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "SOUL.md").write_text("The owner's words.")
    (folder / section_in).write_text("# Notes\n\n## Tools\n\nThe red printer.")
    before, config = files(folder), world.config_path.read_bytes()
    ask: dict[str, Any] = {
        "gateway_id": world.fleet.gateway_id,
        "board_id": world.fleet.board_id,
        "openclaw_id": "owners-bot",
    }
    world.proxy.forget()
    promise = world.ended(world.ask("adopt_agent", **ask, diff=True))
    assert (files(folder), promise["status"]) == (before, "succeeded"), promise
    job = world.ended(world.ask("adopt_agent", **ask, dry_run=False))
    assert job["status"] == "succeeded", job
    assert {name: file["action"] for name, file in job["result"]["files"].items()} == {
        name: file["action"] for name, file in promise["result"]["files"].items()
    }
    assert world.proxy.count("config.patch", "sessions.reset", "sessions.patch", "chat.send") == 0
    assert world.proxy.count("agents.files.set") == 1
    assert world.config_path.read_bytes() == config
    written = (folder / section_in).read_text()
    assert {**files(folder), section_in: before[section_in]} == before
    assert written.startswith(before[section_in])
    token = find_token(written, section=True)
    agent_id = UUID(job["result"]["agent_id"])
    row = world.agent(agent_id)
    assert (row["name"], verify_token(str(token), row["agent_token_hash"])) == ("Owner's own", True)
    assert str(token) not in json.dumps(job, default=str)

    synced = world.ended(
        world.ask(
            "sync_gateway",
            gateway_id=world.fleet.gateway_id,
            include_main=False,
            agent_ids=[str(agent_id)],
        )
    )
    assert synced["status"] == "succeeded", synced
    assert world.config_path.read_bytes() == config
    assert (files(folder)[section_in], files(folder)["SOUL.md"]) == (written, before["SOUL.md"])
    world.forget(agent_id)
    with world.engine.begin() as connection:
        connection.execute(text("DELETE FROM agents WHERE id = :id"), {"id": agent_id})
