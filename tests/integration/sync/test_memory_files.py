"""What an agent or its human wrote outlives every run, wherever the agent was before (rules.md 16)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.integration.agents.fleet import besides_first_block
from tests.integration.sync.scene import Scene
from worker.lab.simulator.seeds import USER_MD
from worker.records.agent_repository import load_agent

NOTES = "The release is on Friday.\n"
PERSON = "She likes short answers.\n"


def folder(scene: Scene, agent_id: UUID) -> Path:
    with scene.engine.connect() as connection:
        return Path(load_agent(connection, agent_id, main=True).workspace)


def actions(job: Any) -> dict[str, str]:
    return {name: file["action"] for name, file in job.result["files"].items()}


def provision(scene: Scene, agent_id: UUID, kind: str = "provision_agent", **options: Any) -> Any:
    job = scene.ask(kind, agent_id=agent_id, wake=False, **options)
    scene.serve()
    ended = scene.job(job)
    assert ended.status == "succeeded", ended.error
    return ended


def wipe_roster(scene: Scene) -> None:
    """What an owner does who starts over with his config."""
    path = scene.simulator.config_path
    config = json.loads(path.read_text())
    del config["agents"]
    path.write_text(json.dumps(config))


def register(scene: Scene, agent_id: UUID) -> Path:
    """The agent as another program brought it to life: in the roster, its workspace its own."""
    with scene.engine.connect() as connection:
        record = load_agent(connection, agent_id)
    path = scene.simulator.config_path
    config = json.loads(path.read_text())
    entry = {"name": record.agent.name, "workspace": record.workspace}
    if scene.simulator.release.roster_is_map:
        config["agents"] = {"ownership": "explicit", "entries": {"main": {}, record.openclaw_id: entry}}
    else:
        config["agents"] = {"list": [{"id": "main"}, {"id": record.openclaw_id, **entry}]}
    path.write_text(json.dumps(config))
    workspace = Path(record.workspace)
    workspace.mkdir(parents=True)
    return workspace


def test_an_agent_whose_entry_was_lost_keeps_its_memories(scene: Scene) -> None:
    agent = scene.agent("Ann")
    scene.provision(agent)
    (folder(scene, agent) / "MEMORY.md").write_text(NOTES)
    (folder(scene, agent) / "USER.md").write_text(PERSON)
    wipe_roster(scene)
    job = provision(scene, agent)
    assert (actions(job)["MEMORY.md"], actions(job)["USER.md"]) == ("preserved", "preserved")
    assert (folder(scene, agent) / "MEMORY.md").read_text() == NOTES
    assert (folder(scene, agent) / "USER.md").read_text() == PERSON
    assert besides_first_block(job.warnings) == []


def test_a_deleted_agent_whose_files_were_kept_finds_them_again(scene: Scene) -> None:
    agent = scene.agent("Ann")
    scene.provision(agent)
    (folder(scene, agent) / "MEMORY.md").write_text(NOTES)
    scene.ask("delete_agent", agent_id=agent, delete_files=False, delete_row=False)
    scene.serve()
    provision(scene, agent)
    assert (folder(scene, agent) / "MEMORY.md").read_text() == NOTES


def test_an_agent_that_another_program_made_keeps_its_memories_and_is_not_started_anew(scene: Scene) -> None:
    agent = scene.agent("Ann")
    workspace = register(scene, agent)
    (workspace / "MEMORY.md").write_text(NOTES)
    (workspace / "USER.md").write_text(PERSON)
    (workspace / "SOUL.md").write_text("Somebody else's soul.\n")
    job = provision(scene, agent)
    assert (workspace / "MEMORY.md").read_text() == NOTES
    assert (workspace / "USER.md").read_text() == PERSON
    assert actions(job)["SOUL.md"] == "update"
    assert not (workspace / "BOOTSTRAP.md").exists()


@pytest.mark.parametrize("registered", [False, True], ids=["a folder alone", "in the roster too"])
def test_what_the_release_seeds_gives_way_to_ours(scene: Scene, registered: bool) -> None:
    agent = scene.agent("Ann")
    if registered:
        workspace = register(scene, agent)
    else:
        workspace = folder(scene, agent)
        workspace.mkdir(parents=True)
    (workspace / "USER.md").write_text(USER_MD[scene.simulator.release.name])
    (workspace / "MEMORY.md").write_text("")
    job = provision(scene, agent)
    assert (actions(job)["USER.md"], actions(job)["MEMORY.md"]) == ("update", "update")
    assert "Ada Lovelace" in (workspace / "USER.md").read_text()
    assert (workspace / "MEMORY.md").read_text() != ""
    assert besides_first_block(job.warnings) == []


def test_overwrite_names_what_it_replaces(scene: Scene) -> None:
    agent = scene.agent("Ann")
    scene.provision(agent)
    (folder(scene, agent) / "MEMORY.md").write_text(NOTES)
    job = provision(scene, agent, "update_agent", overwrite=True)
    assert actions(job)["MEMORY.md"] == "update"
    assert (folder(scene, agent) / "MEMORY.md").read_text() != NOTES
    assert job.warnings == ["overwrite replaces what the agent or its human wrote into MEMORY.md."]
    assert provision(scene, agent, "update_agent", overwrite=True).warnings == []


def test_a_time_zone_that_is_set_later_reaches_the_agent(scene: Scene) -> None:
    ours, own = scene.agent("Ann"), scene.agent("Bob")
    scene.provision(ours, own)
    (folder(scene, own) / "USER.md").write_text(PERSON)
    scene.execute("UPDATE users SET timezone = 'Asia/Tokyo'")
    job = scene.sync(include_main=False)
    assert job.status == "succeeded"
    assert "Asia/Tokyo" in (folder(scene, ours) / "USER.md").read_text()
    assert (folder(scene, own) / "USER.md").read_text() == PERSON
    assert scene.rows(job.id)["Ann"].files["USER.md"]["changed_by"] == "templates"


def test_a_memory_under_its_old_name_counts(scene: Scene) -> None:
    """Up to 2026.3 ``memory.md`` serves as MEMORY.md, and some disks do not tell the two apart."""
    if scene.simulator.release.roster_is_map:
        pytest.skip("MEMORY.md alone is looked for")
    agent = scene.agent("Ann")
    workspace = register(scene, agent)
    (workspace / "SOUL.md").write_text("A soul.\n")
    (workspace / "memory.md").write_text(NOTES)
    job = provision(scene, agent)
    assert actions(job)["MEMORY.md"] == "preserved"
    assert not (workspace / "MEMORY.md").exists()
