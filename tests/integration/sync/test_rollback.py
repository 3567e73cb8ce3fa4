"""What a job replaced comes back, and stays until it is released (rules.md 50, 51)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.integration.sync.scene import Scene, on_one_release
from tests.integration.sync.test_layers import checked, deliver, layer
from tests.integration.sync.test_layers import put as put_version
from tests.integration.sync.test_memory_files import folder
from tests.integration.sync.test_settings import edit_entry, entry, patches, put, update, with_models
from tests.integration.sync.test_three_sides import NOTE, edit, file_of, restyle
from worker.jobs.store.pruning import prune
from worker.records.holds import (
    all_held,
    hold_as_delivered,
    release_fields,
    release_holds,
    release_superseded,
)
from worker.workspace.template_sources import sources_sha256
from worker.workspace.tokens import find_token


@pytest.fixture
def ann(scene: Scene) -> UUID:
    agent = scene.agent("Ann")
    scene.provision(agent)
    return agent


def carrier(scene: Scene, agent: UUID) -> Path:
    return folder(scene, agent) / ("AGENTS.md" if scene.simulator.release.roster_is_map else "TOOLS.md")


def contents(scene: Scene, agent: UUID) -> dict[str, str]:
    """The agent's files, the token's line aside."""
    token = find_token(carrier(scene, agent).read_text(), section=scene.simulator.release.roster_is_map)
    return {
        path.name: path.read_text().replace(str(token), "TOKEN")
        for path in folder(scene, agent).glob("*.md")
        if path.name != "BOOTSTRAP.md"
    }


def synced(scene: Scene, **options: Any) -> Any:
    return scene.sync(include_main=False, **options)


def roll_back(scene: Scene, agent: UUID, **options: Any) -> Any:
    job = scene.ask("rollback", agent_id=agent, **options)
    scene.serve()
    return scene.job(job)


def warnings(scene: Scene, job: Any) -> list[str]:
    [row] = scene.rows(job.id).values()
    return list(row.warnings)


def test_what_a_sync_changed_comes_back_to_the_byte_and_stays(scene: Scene, ann: UUID) -> None:
    before = contents(scene, ann)
    restyle(scene, "terse")
    scene.execute("UPDATE users SET timezone = 'Asia/Tokyo'")
    done = synced(scene, rotate_tokens=True)
    assert done.status == "succeeded"
    changed = contents(scene, ann)
    assert changed["SOUL.md"] != before["SOUL.md"]

    planned = roll_back(scene, ann, dry_run=True)
    assert planned.status == "succeeded", planned.error
    assert file_of(scene, planned, "SOUL.md")["action"] == "update"
    assert contents(scene, ann) == changed
    assert synced(scene, dry_run=True).result["files_written"] == 0, "a plan holds nothing"

    back = roll_back(scene, ann, requested_by="ada")
    assert back.status == "succeeded", back.error
    assert contents(scene, ann) == before
    for _ in range(2):
        again = synced(scene)
        assert (again.status, again.result["agents_unchanged"]) == ("succeeded", 1)
        shown = file_of(scene, again, "SOUL.md")
        assert (shown["held"]["by"], shown["held"]["job_id"]) == ("ada", str(back.id))
        [held] = warnings(scene, again)
        assert held.startswith("Held since 20")
        assert "rolled back by ada: " in held
    rotated = synced(scene, rotate_tokens=True)
    assert rotated.status == "succeeded"
    assert contents(scene, ann) == before

    assert roll_back(scene, ann, release=True).result["released"] is True
    assert contents(scene, ann) == before
    synced(scene)
    assert contents(scene, ann) == changed


@on_one_release
def test_one_that_fails_says_that_the_next_job_brings_it_back(scene: Scene, ann: UUID) -> None:
    before = contents(scene, ann)
    restyle(scene, "terse")
    synced(scene)
    scene.execute("UPDATE agents SET is_board_lead = true")  # an id under which nobody is registered
    failed = roll_back(scene, ann)
    assert failed.status == "failed"
    assert "is held all the same" in warnings(scene, failed)[-1]
    scene.execute("UPDATE agents SET is_board_lead = false")
    synced(scene)
    assert contents(scene, ann) == before


def test_what_the_agent_wrote_before_and_since_stays(scene: Scene, ann: UUID) -> None:
    soul = folder(scene, ann) / "SOUL.md"
    edit(soul, "- You are useful", f"{NOTE}\n- You are useful")
    before = contents(scene, ann)
    restyle(scene, "terse")
    assert file_of(scene, synced(scene), "SOUL.md")["action"] == "merge"
    assert roll_back(scene, ann).status == "succeeded"
    assert contents(scene, ann) == before
    assert synced(scene).result["files_written"] == 0

    roll_back(scene, ann, release=True)
    synced(scene)
    assert "- Style: terse" in soul.read_text()
    edit(soul, NOTE, f"{NOTE}\n- Nor after six.")
    assert roll_back(scene, ann).status == "succeeded"
    assert soul.read_text() == before["SOUL.md"].replace(NOTE, f"{NOTE}\n- Nor after six.")


def test_what_an_overwrite_destroyed_comes_back_as_the_agents(scene: Scene, ann: UUID) -> None:
    soul, tools = folder(scene, ann) / "SOUL.md", carrier(scene, ann)
    soul.write_text(f"{NOTE}\nAll of this is mine.\n")
    tools.write_text(f"{tools.read_text()}\n## Mine\n\n{NOTE}\n")
    before = contents(scene, ann)
    gone = synced(scene, overwrite=True)
    assert file_of(scene, gone, "SOUL.md")["action"] == "update"
    assert NOTE not in soul.read_text() + tools.read_text()
    back = roll_back(scene, ann)
    assert back.status == "succeeded", back.error
    assert contents(scene, ann) == before
    roll_back(scene, ann, release=True)
    assert synced(scene).result["files_written"] == 0, "the agent's text is its own again"
    assert contents(scene, ann) == before
    restyle(scene, "terse")
    assert file_of(scene, synced(scene), "SOUL.md")["action"] == "conflict"
    assert contents(scene, ann)["SOUL.md"] == before["SOUL.md"]


def test_a_text_with_a_secret_is_not_kept_and_that_is_said(scene: Scene, ann: UUID) -> None:
    soul = folder(scene, ann) / "SOUL.md"
    shipped = soul.read_text()
    soul.write_text("api_key = sk-proj-4f8a9c2e7b1d6035a8e9f0c3b2d17465\n")
    synced(scene, overwrite=True)
    kept = scene.row("SELECT * FROM provisioner.file_changes WHERE name = 'SOUL.md'")
    assert (kept.text_sha256, kept.unkept) == (None, "secret")
    back = roll_back(scene, ann)
    assert any(
        "What stood in SOUL.md was not kept, for it holds what looks like a secret" in each
        for each in warnings(scene, back)
    )
    assert soul.read_text() == shipped


def test_a_whole_job_is_taken_back(scene: Scene, ann: UUID) -> None:
    bob, cat = scene.agent("Bob"), scene.agent("Cat")
    scene.provision(bob, cat)
    before = {agent: contents(scene, agent) for agent in (ann, bob, cat)}
    restyle(scene, "terse")
    done = synced(scene)
    scene.execute("DELETE FROM agents WHERE id = :id", id=cat)
    elsewhere = scene.fleet.add_gateway("elsewhere", scene.simulator.url)
    refused = scene.ask("rollback_job", gateway_id=elsewhere, undo_job_id=done.id)
    scene.serve()
    assert f"changed no agent of gateway {elsewhere}" in scene.job(refused).error
    assert contents(scene, ann) != before[ann]
    job = scene.ask("rollback_job", gateway_id=scene.fleet.gateway_id, undo_job_id=done.id)
    scene.serve()
    whole = scene.job(job)
    assert (whole.status, len(whole.result["jobs"])) == ("succeeded", 2)
    assert [left["reason"] for left in whole.result["left_out"]] == ["it was deleted"]
    for agent in (ann, bob):
        assert contents(scene, agent) == before[agent]
    refused = scene.ask("rollback_job", gateway_id=scene.fleet.gateway_id, undo_job_id=ann)
    scene.serve()
    assert "changed no agent, or longer ago" in scene.job(refused).error


@on_one_release
def test_nothing_to_take_back_is_said(scene: Scene, ann: UUID) -> None:
    assert "no job has changed it" in roll_back(scene, ann).error
    assert "changed nothing of Ann" in roll_back(scene, ann, undo_job_id=ann).error


def test_agents_that_a_roll_out_has_not_reached_keep_what_they_have(scene: Scene, ann: UUID) -> None:
    before = contents(scene, ann)
    place = layer(scene)
    with scene.engine.begin() as connection:
        hold_as_delivered(
            connection,
            scene.fleet.gateway_id,
            [ann],
            job_id=synced(scene).id,
            held_by="ada",
            sources=sources_sha256(None),
        )
    put_version(scene, place, "SOUL.md", "{% if broken %}")
    deliver(scene, place, SOUL=1)
    held = synced(scene)
    assert (held.status, held.result["files_written"]) == ("succeeded", 0), held.error
    assert contents(scene, ann) == before
    put_version(scene, place, "SOUL.md", "You are {{ agent_name }}.")
    deliver(scene, place, SOUL=2)
    with scene.engine.begin() as connection:
        assert release_superseded(connection, [ann], ["SOUL.md"]) == 1
    synced(scene)
    assert contents(scene, ann)["SOUL.md"].strip() == "You are Ann."
    with scene.engine.begin() as connection:
        assert release_holds(connection, [ann]) == [ann]
    assert synced(scene).result["files_written"] == 0


def test_an_entry_comes_back_in_one_patch_and_stays(scene: Scene) -> None:
    with_models(scene)
    ann, bob = scene.agent("Ann"), scene.agent("Bob")
    scene.provision(ann, bob)
    edit_entry(scene, bob, lambda each: each.update(model={"primary": "stub/other"}))
    before = [entry(scene, each) for each in (ann, bob)]
    put(scene, "board", scene.fleet.board_id, model="stub/m", skills=["cooking"])
    scene.execute("UPDATE agents SET name = 'Anna' WHERE id = :id", id=ann)
    done = synced(scene)
    changed = [entry(scene, each) for each in (ann, bob)]
    assert (changed[0]["name"], changed[1]["model"], changed[1]["skills"]) == ("Anna", "stub/m", ["cooking"])

    planned = roll_back(scene, bob, undo_job_id=done.id, dry_run=True)
    assert planned.result["roster"]["action"] == "update", planned
    assert [entry(scene, each) for each in (ann, bob)] == changed
    sent = patches(scene)
    scene.ask("rollback_job", gateway_id=scene.fleet.gateway_id, undo_job_id=done.id)
    scene.serve()
    assert [entry(scene, each) for each in (ann, bob)] == before
    assert patches(scene) == sent + 1
    held = synced(scene)
    assert (held.status, held.result["roster_changes"]) == ("succeeded", 0)
    assert any("model, skills of its roster entry" in each for each in held.result["warnings"])
    assert [entry(scene, each) for each in (ann, bob)] == before

    with scene.engine.begin() as connection:
        assert release_fields(connection, "board", scene.fleet.board_id, ["model"]) == 2
    put(scene, "board", scene.fleet.board_id, model="stub/other")
    assert update(scene, bob).status == "succeeded"
    assert (entry(scene, bob)["model"], "skills" in entry(scene, bob)) == ("stub/other", False)
    roll_back(scene, ann, release=True)
    assert update(scene, ann).status == "succeeded"
    assert entry(scene, ann)["name"] == "Anna"


@on_one_release
def test_nothing_of_a_deleted_agent_is_held(scene: Scene, ann: UUID) -> None:
    restyle(scene, "terse")
    synced(scene)
    assert roll_back(scene, ann).status == "succeeded"
    gone = scene.ask("delete_agent", agent_id=ann, delete_row=False)
    scene.serve()
    assert scene.job(gone).status == "succeeded"
    with scene.engine.connect() as connection:
        assert all_held(connection) == []


@on_one_release
def test_a_newer_version_ends_the_hold_and_nothing_else_does(scene: Scene, ann: UUID, tmp_path: Path) -> None:
    place = layer(scene)
    put_version(scene, place, "SOUL.md", "One.")
    deliver(scene, place, SOUL=1)
    synced(scene)
    put_version(scene, place, "SOUL.md", "Two.")
    deliver(scene, place, SOUL=2)
    restyle(scene, "terse")
    synced(scene)
    assert roll_back(scene, ann).status == "succeeded"
    assert contents(scene, ann)["SOUL.md"] == "One."
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "IDENTITY.md.j2").write_text("I am {{ agent_name }}.")
    settings = scene.services.settings.model_copy(update={"templates_dir": tmp_path})
    scene.services = replace(scene.services, settings=settings)
    synced(scene)
    assert contents(scene, ann)["SOUL.md"] == "One.", "a layer's file does not follow TEMPLATES_DIR"
    assert contents(scene, ann)["IDENTITY.md"] == "I am Ann."
    put_version(scene, place, "SOUL.md", "Three.")
    found = checked(scene, place, "SOUL.md")
    deliver(scene, place, SOUL=3)
    with scene.engine.begin() as connection:
        assert found.release(connection, ["SOUL.md"]) == 1
    synced(scene)
    assert contents(scene, ann)["SOUL.md"] == "Three."


@on_one_release
def test_a_file_that_no_layer_makes_follows_templates_dir_again(
    scene: Scene, ann: UUID, tmp_path: Path
) -> None:
    before = contents(scene, ann)["SOUL.md"]
    restyle(scene, "terse")
    synced(scene)
    assert roll_back(scene, ann).status == "succeeded"
    assert contents(scene, ann)["SOUL.md"] == before
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "SOUL.md.j2").write_text("I am {{ agent_name }}.")
    settings = scene.services.settings.model_copy(update={"templates_dir": tmp_path})
    scene.services = replace(scene.services, settings=settings)
    synced(scene)
    assert contents(scene, ann)["SOUL.md"] == "I am Ann."
    with scene.engine.connect() as connection:
        assert "SOUL.md" not in {row.name for row in all_held(connection)}


@on_one_release
def test_a_job_that_has_an_agent_keep_something_is_not_pruned(scene: Scene, ann: UUID) -> None:
    restyle(scene, "terse")
    synced(scene)
    back = roll_back(scene, ann)
    roll_back(scene, ann, dry_run=True)
    synced(scene)
    assert sum(each.jobs for each in prune(scene.engine, timedelta(0))) > 0
    assert scene.job(back.id).status == "succeeded"
    roll_back(scene, ann, release=True)
    assert sum(each.jobs for each in prune(scene.engine, timedelta(0))) > 0
    assert scene.row("SELECT count(*) AS jobs FROM provisioner.jobs WHERE id = :id", id=back.id).jobs == 0
