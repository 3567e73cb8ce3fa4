"""Files that both we and the agent changed: merged, or kept and named (rules.md 47)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.integration.sync.scene import Scene, on
from tests.integration.sync.test_memory_files import folder
from worker.lab.simulator.faults import FakeReply, Fault, Hold
from worker.lab.simulator.heartbeats import Heartbeats
from worker.workspace.tokens import find_token, verify_token

NOTE = "- You never call Ada before nine."


def restyle(scene: Scene, style: str) -> None:
    """Change a line of everybody's SOUL.md, as Mission Control does."""
    change = (
        "UPDATE agents SET identity_profile = jsonb_build_object('communication_style', CAST(:style AS text))"
    )
    scene.execute(change, style=style)


def edit(path: Path, old: str, new: str) -> str:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path.read_text()


def file_of(scene: Scene, job: Any, name: str) -> Any:
    [row] = scene.rows(job.id).values()
    return row.files[name]


@pytest.fixture
def ann(scene: Scene) -> UUID:
    agent = scene.agent("Ann")
    scene.provision(agent)
    return agent


def test_changes_that_do_not_touch_are_merged_and_stay_so(scene: Scene, ann: UUID) -> None:
    soul = folder(scene, ann) / "SOUL.md"
    edit(soul, "- You are useful", f"{NOTE}\n- You are useful")
    assert file_of(scene, scene.sync(), "SOUL.md")["action"] == "preserved"
    restyle(scene, "terse")
    promised = file_of(scene, scene.sync(dry_run=True), "SOUL.md")
    done = scene.sync()
    assert file_of(scene, done, "SOUL.md")["action"] == promised["action"] == "merge"
    assert file_of(scene, done, "SOUL.md")["changed_by"] == "both"
    merged = soul.read_text()
    assert NOTE in merged
    assert "- Style: terse" in merged
    assert file_of(scene, done, "SOUL.md")["size"] == len(merged.encode())

    with scene.counting() as costs:
        again = scene.sync()
    assert (file_of(scene, again, "SOUL.md")["action"], again.result["agents_unchanged"]) == ("preserved", 1)
    assert costs.calls["agents.files.get"] == costs.calls["agents.files.set"] == 0
    assert soul.read_text() == merged

    edit(soul, NOTE, f"{NOTE}\n- Nor after six.")
    restyle(scene, "chatty")
    assert file_of(scene, scene.sync(), "SOUL.md")["action"] == "merge"
    assert soul.read_text() == merged.replace("terse", "chatty").replace(NOTE, f"{NOTE}\n- Nor after six.")


def test_a_conflict_is_kept_and_named_until_somebody_settles_it(scene: Scene, ann: UUID) -> None:
    soul = folder(scene, ann) / "SOUL.md"
    edit(soul, "- Style: ", "- Style: ornate, and not ")
    mine = soul.read_text()
    restyle(scene, "terse")
    for _ in range(2):
        job = scene.sync()
        shown = file_of(scene, job, "SOUL.md")
        assert (shown["action"], shown["changed_by"]) == ("conflict", "both")
        assert "+- Style: terse" in shown["diff"]
        [row] = scene.rows(job.id).values()
        [warning] = [each for each in row.warnings if "SOUL.md" in each]
        assert "both changed the same lines" in warning
        assert "--overwrite-file SOUL.md or --keep-file SOUL.md" in warning
        assert soul.read_text() == mine
    kept = scene.sync(keep_files=["SOUL.md", "SOUL.txt"])
    assert file_of(scene, kept, "SOUL.md")["action"] == "preserved"
    [row] = scene.rows(kept.id).values()
    assert "There is no SOUL.txt of ours for this agent, so none was overwritten or kept." in row.warnings
    assert file_of(scene, scene.sync(), "SOUL.md")["action"] == "preserved"
    assert soul.read_text() == mine
    replaced = scene.sync(overwrite_files=["SOUL.md"])
    assert file_of(scene, replaced, "SOUL.md")["action"] == "update"
    assert "ornate" not in soul.read_text()
    assert "- Style: terse" in soul.read_text()


def test_notes_beside_the_credentials_outlive_a_rotation(scene: Scene, ann: UUID) -> None:
    section = scene.simulator.release.roster_is_map
    carrier = folder(scene, ann) / ("AGENTS.md" if section else "TOOLS.md")
    before = find_token(carrier.read_text(), section=section)
    carrier.write_text(f"{carrier.read_text()}\n{NOTE} Ever.\n\n## Mine\n\n{NOTE}\n")
    job = scene.sync(rotate_tokens=True)
    text = carrier.read_text()
    token = find_token(text, section=section)
    assert file_of(scene, job, carrier.name)["token"] == "rotated"
    assert token not in (None, before)
    assert text.count("AUTH_TOKEN=") == text.count(f"AUTH_TOKEN={token}")
    assert text.endswith(f"\n{NOTE} Ever.\n\n## Mine\n\n{NOTE}\n")
    row = scene.row("SELECT agent_token_hash FROM agents WHERE id = :id", id=ann)
    assert verify_token(str(token), row.agent_token_hash)
    kept = scene.sync()
    assert kept.result["agents_unchanged"] == 1
    assert carrier.read_text() == text


def test_a_changed_time_zone_reaches_its_line_between_the_agents_own(scene: Scene, ann: UUID) -> None:
    user = folder(scene, ann) / "USER.md"
    user.write_text(f"{user.read_text()}\n- 2026-11-02: {NOTE}\n")
    scene.execute("UPDATE users SET timezone = 'Asia/Tokyo'")
    job = scene.sync()
    assert file_of(scene, job, "USER.md")["action"] == "merge"
    assert "Asia/Tokyo" in user.read_text()
    assert NOTE in user.read_text()


def test_a_fleet_from_before_has_hashes_alone(scene: Scene, ann: UUID) -> None:
    """The rendering of an agent's own change is kept as soon as it is seen; what changed on both sides before
    that is a conflict."""
    soul = folder(scene, ann) / "SOUL.md"
    scene.execute("DELETE FROM provisioner.file_texts")
    edit(soul, "- You are useful", f"{NOTE}\n- You are useful")
    restyle(scene, "terse")
    conflict = scene.sync()
    assert file_of(scene, conflict, "SOUL.md")["action"] == "conflict"
    [row] = scene.rows(conflict.id).values()
    assert any("what was delivered last is not known" in each for each in row.warnings)
    scene.execute("UPDATE agents SET identity_profile = NULL")
    assert file_of(scene, scene.sync(), "SOUL.md")["action"] == "preserved"
    restyle(scene, "terse")
    assert file_of(scene, scene.sync(), "SOUL.md")["action"] == "merge"
    assert NOTE in soul.read_text()


OWNERS = """
    INSERT INTO provisioner.file_owners (scope, target_id, name, owner)
    VALUES (:scope, :id, 'SOUL.md', :owner)
"""


def test_an_operator_says_whose_a_file_is(scene: Scene, ann: UUID) -> None:
    soul = folder(scene, ann) / "SOUL.md"
    edit(soul, "- You are useful", f"{NOTE}\n- You are useful")
    board = scene.row("SELECT board_id FROM agents WHERE id = :id", id=ann).board_id
    scene.execute(OWNERS, scope="gateway", id=scene.fleet.gateway_id, owner="ours")
    scene.execute(OWNERS, scope="board", id=board, owner="agent")
    restyle(scene, "terse")
    assert file_of(scene, scene.sync(), "SOUL.md")["action"] == "preserved"
    scene.execute("DELETE FROM provisioner.file_owners WHERE scope = 'board'")
    assert file_of(scene, scene.sync(), "SOUL.md")["action"] == "update"
    assert NOTE not in soul.read_text()


def test_nothing_is_merged_while_a_worker_that_cannot_is_running(scene: Scene, ann: UUID) -> None:
    soul = folder(scene, ann) / "SOUL.md"
    edit(soul, "- You are useful", f"{NOTE}\n- You are useful")
    restyle(scene, "terse")
    scene.execute("INSERT INTO provisioner.workers (name) VALUES ('of the release before')")
    waiting = scene.sync()
    [row] = scene.rows(waiting.id).values()
    assert row.files["SOUL.md"]["action"] == "conflict"
    assert any("workers of a release that cannot merge are still running" in each for each in row.warnings)
    scene.execute("UPDATE provisioner.workers SET seen_at = now() - interval '2 minutes'")
    assert file_of(scene, scene.sync(), "SOUL.md")["action"] == "merge"


def test_a_file_that_changes_while_it_is_replaced_is_planned_anew(scene: Scene, ann: UUID) -> None:
    soul = folder(scene, ann) / "SOUL.md"
    restyle(scene, "terse")
    newest = scene.simulator.release.roster_is_map
    # The newest release compares hashes; before, the folder is listed once more.
    fault = (
        Fault(Hold(), "agents.files.set", file="SOUL.md")
        if newest
        else Fault(Hold(), "agents.files.list", nth=2)
    )
    held = scene.simulator.faults.schedule(fault)
    with ThreadPoolExecutor(1) as threads:
        sync = threads.submit(scene.sync)
        assert held.wait(timeout_s=20)
        edit(soul, "- You are useful", f"{NOTE}\n- You are useful")
        held.release()
        job = sync.result()
    assert file_of(scene, job, "SOUL.md")["action"] == "merge"
    assert NOTE in soul.read_text()
    assert "- Style: terse" in soul.read_text()


def test_a_heartbeat_text_that_changes_while_it_is_replaced_is_planned_anew(scene: Scene, ann: UUID) -> None:
    if not scene.simulator.release.roster_is_map:
        pytest.skip("its heartbeat text is a file")
    heartbeats = Heartbeats(scene.simulator.config_path.parent)
    [job_id] = [job["id"] for job in heartbeats.jobs(f"mc-{ann}", 0, None)["jobs"]]
    text = heartbeats.scratch(job_id)["scratch"]["content"]
    scene.execute("UPDATE agents SET name = 'Anna' WHERE id = :id", id=ann)
    held = scene.simulator.faults.schedule(Fault(Hold(), "cron.scratch.set"))
    with ThreadPoolExecutor(1) as threads:
        sync = threads.submit(scene.sync)
        assert held.wait(timeout_s=20)
        heartbeats.set_scratch(job_id, f"{text}\n\n{NOTE}\n", None)
        held.release()
        job = sync.result()
    assert file_of(scene, job, "HEARTBEAT.md")["action"] == "merge"
    merged = heartbeats.scratch(job_id)["scratch"]["content"]
    assert NOTE in merged
    assert '"Anna"' in merged


@on("2026.3.13")
def test_a_merge_is_a_change_that_a_session_may_not_show_yet(scene: Scene, ann: UUID) -> None:
    edited = {"SOUL.md", "IDENTITY.md"}
    for name in edited:
        file = folder(scene, ann) / name
        file.write_text(f"{NOTE}\n\n{file.read_text()}")
    restyle(scene, "terse")
    [row] = scene.rows(scene.sync().id).values()
    assert {name for name, file in row.files.items() if file["action"] == "merge"} == edited
    assert "update" not in {file["action"] for file in row.files.values()}
    assert any("only from its next session on" in warning for warning in row.warnings)


def test_a_carrier_that_is_not_utf_8_any_more_is_not_written_back_garbled(scene: Scene, ann: UUID) -> None:
    carrier = "AGENTS.md" if scene.simulator.release.roster_is_map else "TOOLS.md"
    path = folder(scene, ann) / carrier
    now = path.read_bytes() + "\n\n## Notes\n\nCafé\n".encode("latin-1")
    path.write_bytes(now)
    assert file_of(scene, scene.sync(), carrier)["action"] == "preserved"
    [row] = scene.rows(scene.sync(rotate_tokens=True).id).values()
    assert f"its {carrier} is not UTF-8 text, which would be lost" in row.reason
    assert path.read_bytes() == now
    job = scene.sync(rotate_tokens=True, overwrite_files=[carrier])
    assert file_of(scene, job, carrier)["action"] == "update"


def test_what_a_gateway_only_said_it_wrote_is_written_by_the_next_sync(scene: Scene, ann: UUID) -> None:
    soul = folder(scene, ann) / "SOUL.md"
    former = soul.read_text()

    def lied_to(**options: Any) -> Any:
        scene.simulator.faults.schedule(Fault(FakeReply(), "agents.files.set", file="SOUL.md"))
        before = soul.read_text()
        job = scene.sync(**options)
        assert file_of(scene, job, "SOUL.md")["action"] in ("update", "merge")
        assert soul.read_text() == before
        return job

    def healed(job: Any) -> str:
        [row] = scene.rows(job.id).values()
        [warning] = row.warnings
        assert "The gateway said that it had written SOUL.md, and has not" in warning
        return str(file_of(scene, job, "SOUL.md")["action"])

    restyle(scene, "terse")
    for _ in range(2):
        lied_to()
    assert healed(scene.sync(dry_run=True)) == "update"
    done = scene.sync()
    assert (healed(done), file_of(scene, done, "SOUL.md")["changed_by"]) == ("update", "templates")
    assert "- Style: terse" in soul.read_text()

    mine = edit(soul, "- You are useful", f"{NOTE}\n- You are useful")
    restyle(scene, "chatty")
    lied_to()
    assert healed(scene.sync()) == "merge"
    assert soul.read_text() == mine.replace("terse", "chatty")

    lied_to(overwrite_files=["SOUL.md"])
    assert healed(scene.sync()) == "preserved"  # it is the agent's, and nobody asks for more any longer
    assert NOTE in soul.read_text()

    soul.write_text(former)  # by the agent, after all that
    assert file_of(scene, scene.sync(), "SOUL.md")["action"] == "preserved"
    assert soul.read_text() == former
    assert scene.sync().result["agents_unchanged"] == 1


def test_what_its_gateway_puts_where_it_only_said_it_wrote_gives_way_to_ours(scene: Scene) -> None:
    """Every release writes its own text where a file is missing, before an agent's run."""
    ann = scene.agent("Ann")
    names = ("SOUL.md", "USER.md", "IDENTITY.md")
    for name in (*names, "SOUL.md", "USER.md"):
        scene.simulator.faults.schedule(Fault(FakeReply(), "agents.files.set", file=name))
    folder(scene, ann).mkdir(parents=True)
    (folder(scene, ann) / "IDENTITY.md").write_text("Somebody else lived here.")
    scene.ask("provision_agent", agent_id=ann)
    scene.serve()
    assert "Who You Are" in (folder(scene, ann) / "SOUL.md").read_text()
    assert (folder(scene, ann) / "IDENTITY.md").read_text() == "Somebody else lived here."
    job = scene.sync()
    assert {file_of(scene, job, name)["action"] for name in names} == {"update"}
    assert "Who You Are" in (folder(scene, ann) / "SOUL.md").read_text(), "it was lied to once more"
    job = scene.sync()
    assert {file_of(scene, job, name)["action"] for name in ("SOUL.md", "USER.md")} == {"update"}
    assert "- Style: " in (folder(scene, ann) / "SOUL.md").read_text()
    assert scene.sync().result["agents_unchanged"] == 1


@on("2026.9.6")
def test_a_heartbeat_text_that_was_only_said_to_be_written_is_written_too(scene: Scene, ann: UUID) -> None:
    scene.execute("UPDATE agents SET name = 'Anna' WHERE id = :id", id=ann)
    scene.simulator.faults.schedule(Fault(FakeReply(), "cron.scratch.set"))
    assert file_of(scene, scene.sync(), "HEARTBEAT.md")["action"] == "update"
    job = scene.sync()
    [row] = scene.rows(job.id).values()
    assert "The gateway said that it had written HEARTBEAT.md, and has not" in row.warnings[0]
    assert file_of(scene, job, "HEARTBEAT.md")["action"] == "update"
    assert scene.sync().result["agents_unchanged"] == 1
