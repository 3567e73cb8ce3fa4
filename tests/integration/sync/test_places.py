"""Where an agent lives is on record, and nothing is removed that is somebody else's (rules.md 39-41)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from tests.integration.sync.scene import Scene
from worker.errors import PermanentError
from worker.gateway.dialect import Dialect
from worker.gateway.roster_reading import LiveRoster
from worker.jobs.requests import SyncHeartbeats
from worker.jobs.store.jobs import enqueue
from worker.jobs.store.retrying import retry
from worker.lab.simulator.faults import Fault, Garble, Refuse
from worker.records.agent_repository import load_agent
from worker.roster import removals
from worker.roster.writer import write_roster
from worker.sync.heartbeat_job import execute_heartbeats


def run(scene: Scene, kind: str, agent_id: UUID, **options: Any) -> Any:
    job = scene.ask(kind, agent_id=agent_id, **options)
    scene.serve()
    return scene.job(job)


def provision(scene: Scene, agent_id: UUID) -> Any:
    job = run(scene, "provision_agent", agent_id, wake=False)
    assert job.status == "succeeded", job.error
    return job


def delete(scene: Scene, agent_id: UUID, **options: Any) -> Any:
    job = run(scene, "delete_agent", agent_id, **options)
    assert job.status == "succeeded", job.error
    return job


def places(scene: Scene, agent_id: UUID) -> list[tuple[str, bool]]:
    """OpenClaw ids of the agent's places, oldest first, and whether it lives there."""
    with scene.engine.connect() as connection:
        rows = connection.execute(
            text("SELECT openclaw_id, until FROM provisioner.agent_places WHERE agent_id = :id ORDER BY id"),
            {"id": agent_id},
        )
        return [(row.openclaw_id, row.until is None) for row in rows]


def folder(scene: Scene, agent_id: UUID) -> Path:
    with scene.engine.connect() as connection:
        return Path(load_agent(connection, agent_id, main=True).workspace)


def rewrite(scene: Scene, change: Callable[[dict[str, dict[str, Any]]], None]) -> None:
    """Let the owner edit the entries of his roster by hand."""
    path = scene.simulator.config_path
    config = json.loads(path.read_text())
    if scene.simulator.release.roster_is_map:
        change(config["agents"]["entries"])
    else:
        entries = {entry["id"]: entry for entry in config["agents"]["list"]}
        change(entries)
        config["agents"]["list"] = [{"id": key, **entry} for key, entry in entries.items()]
    path.write_text(json.dumps(config))


@pytest.fixture
def lead_id(scene: Scene) -> str:
    return f"lead-{scene.fleet.board_id}"


def test_a_place_is_written_before_the_entry_is_and_closed_once_it_is_gone(scene: Scene) -> None:
    agent = scene.agent("Ann")
    scene.ask("provision_agent", agent_id=agent, wake=False)
    while f"mc-{agent}" not in scene.simulator.agents():
        if scene.simulator.config_writes:
            raise AssertionError("written before it was on record")
        scene.one()
    assert places(scene, agent) == [(f"mc-{agent}", True)]
    scene.serve()
    row = scene.row("SELECT * FROM provisioner.agent_places WHERE agent_id = :id", id=agent)
    assert row.session_key == f"agent:mc-{agent}:main"
    assert row.workspace == str(scene.simulator.state_dir / "ws" / f"workspace-mc-{agent}")
    delete(scene, agent)
    assert places(scene, agent) == [(f"mc-{agent}", False)]


def test_a_new_workspace_root_is_not_followed_without_a_word(scene: Scene) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    old = folder(scene, agent)
    (old / "MEMORY.md").write_text("Months of notes.")
    scene.execute("UPDATE gateways SET workspace_root = :root", root=str(scene.simulator.state_dir / "new"))
    new = folder(scene, agent)
    says = f"puts its workspace at {new}, and until now it was {old}: the gateway moves no files"
    foretold = scene.sync(dry_run=True, include_main=False)
    planned = run(scene, "update_agent", agent, dry_run=True)
    copytree(old, new)  # as the sentence says
    done = run(scene, "update_agent", agent, wake=False)
    assert (done.status, done.result["token"]) == ("succeeded", "reused")
    for job in (foretold, planned, done):
        assert [says in warning for warning in job.warnings] == [True], job.warnings
    assert scene.simulator.workspace(f"mc-{agent}") == new
    assert (new / "MEMORY.md").read_text() == "Months of notes."


def test_an_agent_that_is_right_already_gets_its_place_without_a_config_write(scene: Scene) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    scene.execute("DELETE FROM provisioner.agent_places")
    writes = scene.simulator.config_writes
    assert scene.sync(include_main=False).status == "succeeded"
    assert places(scene, agent) == [(f"mc-{agent}", True)]
    assert scene.simulator.config_writes == writes


def test_a_delete_that_arrives_again_does_not_touch_the_next_lead(scene: Scene, lead_id: str) -> None:
    first = scene.agent("First", lead=True)
    provision(scene, first)
    delete(scene, first)
    second = scene.agent("Second", lead=True)
    provision(scene, second)
    (folder(scene, second) / "MEMORY.md").write_text("The second one's.\n")
    before = scene.simulator.config_path.read_bytes()
    sessions = [call for call in scene.simulator.calls if call.method == "sessions.delete"]
    for options in ({}, {"gateway_id": scene.fleet.gateway_id}):
        job = delete(scene, first, **options)
        assert job.result["removed"] is False
    assert f"{lead_id} belongs to agent 'Second' ({second}) today, so it was left" in job.warnings[0]
    assert scene.simulator.config_path.read_bytes() == before
    assert (folder(scene, second) / "MEMORY.md").read_text() == "The second one's.\n"
    after = [call for call in scene.simulator.calls if call.method == "sessions.delete"]
    assert lead_id not in str(after[len(sessions) :])


def test_nor_does_one_that_is_retried_late(scene: Scene, lead_id: str) -> None:
    first = scene.agent("First", lead=True)
    provision(scene, first)
    refused = Fault(Refuse("not now", code="INVALID_REQUEST"), "agents.delete")
    scene.simulator.faults.schedule(refused)
    failed = run(scene, "delete_agent", first)
    assert failed.status == "failed"
    delete(scene, first)
    second = scene.agent("Second", lead=True)
    provision(scene, second)
    before = scene.simulator.config_path.read_bytes()
    with scene.engine.begin() as connection:
        again = retry(connection, failed.id, requested_by=None)
    scene.serve()
    job = scene.job(again)
    assert (job.status, job.result["removed"]) == ("succeeded", False)
    assert lead_id in scene.simulator.agents()
    assert scene.simulator.config_path.read_bytes() == before


def test_nor_a_lead_whose_row_alone_is_there(scene: Scene, lead_id: str) -> None:
    """Mission Control deleted the first one's row itself, so its place is still on record."""
    first = scene.agent("First", lead=True)
    provision(scene, first)
    scene.execute("DELETE FROM agents WHERE id = :id", id=first)
    scene.agent("Second", lead=True)
    job = delete(scene, first, gateway_id=scene.fleet.gateway_id)
    assert (job.result["removed"], lead_id in scene.simulator.agents()) == (False, True)


def test_an_agent_without_a_row_is_removed_from_where_it_lived(scene: Scene, lead_id: str) -> None:
    first = scene.agent("First", lead=True)
    provision(scene, first)
    scene.execute("DELETE FROM agents WHERE id = :id", id=first)
    job = delete(scene, first)
    assert (job.result["removed"], job.result["openclaw_id"]) == (True, lead_id)
    assert lead_id not in scene.simulator.agents()


def test_a_main_agent_hands_its_id_on_too(scene: Scene) -> None:
    first = scene.main()
    scene.provision(first)
    delete(scene, first)
    second = scene.main()
    scene.provision(second)
    job = delete(scene, first, gateway_id=scene.fleet.gateway_id)
    assert job.result["removed"] is False
    assert f"mc-gateway-{scene.fleet.gateway_id}" in scene.simulator.agents()


def test_a_delete_removes_an_agent_under_its_earlier_role_too(scene: Scene, lead_id: str) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    scene.execute("UPDATE agents SET is_board_lead = true WHERE id = :id", id=agent)
    job = delete(scene, agent)
    assert (job.result["removed"], job.result["openclaw_id"]) == (True, f"mc-{agent}")
    assert f"mc-{agent}" not in scene.simulator.agents()
    assert not folder_of(scene, f"mc-{agent}").exists()


def folder_of(scene: Scene, openclaw_id: str) -> Path:
    return scene.simulator.state_dir / "ws" / f"workspace-{openclaw_id}"


@pytest.mark.parametrize("recorded", [True, False], ids=["on record", "made by another program"])
def test_a_provision_moves_an_agent_whose_role_has_changed(
    scene: Scene, lead_id: str, recorded: bool
) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    if not recorded:
        scene.execute("DELETE FROM provisioner.agent_places")
    scene.execute("UPDATE agents SET is_board_lead = true WHERE id = :id", id=agent)
    provision(scene, agent)
    assert {f"mc-{agent}", lead_id} & set(scene.simulator.agents()) == {lead_id}
    assert dict(places(scene, agent)) == {f"mc-{agent}": False, lead_id: True}
    assert not folder_of(scene, f"mc-{agent}").exists()


def write_notes(scene: Scene, workspace: Path) -> None:
    (workspace / "MEMORY.md").write_text("Months of notes.\n")


def note_the_day(scene: Scene, workspace: Path) -> None:
    """Up to 2026.7 no answer of a gateway shows that."""
    scene.execute("UPDATE agents SET last_seen_at = now()")
    (workspace / "memory").mkdir()
    (workspace / "memory" / "2026-02-12.md").write_text("Notes of the day.\n")


def begin_work(scene: Scene, workspace: Path) -> None:
    (workspace / "BOOTSTRAP.md").unlink()


@pytest.mark.parametrize("live_there", [write_notes, note_the_day, begin_work])
def test_an_agent_whose_role_has_changed_does_not_lose_its_notes(
    scene: Scene, lead_id: str, live_there: Callable[[Scene, Path], None]
) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    workspace = folder_of(scene, f"mc-{agent}")
    live_there(scene, workspace)
    before = {file: file.read_text() for file in workspace.rglob("*.md")}
    scene.execute("UPDATE agents SET is_board_lead = true WHERE id = :id", id=agent)
    job = provision(scene, agent)
    assert {f"mc-{agent}", lead_id} & set(scene.simulator.agents()) == {lead_id}
    assert {file: file.read_text() for file in workspace.rglob("*.md")} == before
    assert any(
        str(workspace) in warning and "delete the folder by hand" in warning for warning in job.warnings
    )


def insert_heartbeats(scene: Scene) -> UUID:
    """A ``sync_heartbeats`` of the whole gateway, as far as its roster is written."""
    with scene.engine.begin() as connection:
        request = SyncHeartbeats(gateway_id=scene.fleet.gateway_id)
        job = enqueue(connection, request, published=True).job_id
    scene.begin_heartbeats(job)
    write_roster(scene.services, scene.fleet.gateway_id)
    return job


def test_two_leads_of_one_board_do_not_fight(scene: Scene, lead_id: str) -> None:
    first, second = scene.agent("First", lead=True), scene.agent("Second", lead=True)
    provision(scene, first)
    before = scene.simulator.agents()[lead_id]
    for kind, options in (("provision_agent", {}), ("update_agent", {"rotate_tokens": True})):
        job = run(scene, kind, second, wake=False, **options)
        assert job.status == "failed"
        assert f"Its OpenClaw id {lead_id} belongs to agent 'First' ({first})" in job.error
        assert "clear is_board_lead of one of them" in job.error
    heartbeats = insert_heartbeats(scene)
    synced = scene.sync(include_main=False)
    assert synced.result["agents_updated"] == 1
    assert [error["agent_name"] for error in synced.result["errors"]] == ["Second"]
    execute_heartbeats(scene.services, heartbeats)
    assert scene.job(heartbeats).status == "partial", scene.rows(heartbeats)
    assert f"belongs to agent {first} on this gateway" in scene.job(heartbeats).error
    assert scene.simulator.agents()[lead_id] == before
    with scene.engine.connect() as connection, pytest.raises(PermanentError, match="one lead"):
        load_agent(connection, second)


def test_of_two_new_leads_the_older_one_is_served(scene: Scene, lead_id: str) -> None:
    jobs = [
        scene.ask("provision_agent", agent_id=scene.agent(name, lead=True), wake=False)
        for name in ("First", "Second")
    ]
    scene.serve()
    assert [scene.job(job).status for job in jobs] == ["succeeded", "failed"]
    assert scene.simulator.agents()[lead_id]["name"] == "First"


def test_an_id_is_handed_on_while_its_last_holder_is_being_deleted(scene: Scene, lead_id: str) -> None:
    first = scene.agent("First", lead=True)
    provision(scene, first)
    second = scene.agent("Second", lead=True)
    jobs = [
        scene.ask("delete_agent", agent_id=first),
        scene.ask("provision_agent", agent_id=second, wake=False),
    ]
    scene.serve()
    assert [scene.job(job).status for job in jobs] == ["succeeded", "succeeded"], scene.job(jobs[1]).error
    assert scene.simulator.agents()[lead_id]["name"] == "Second"
    assert places(scene, second) == [(lead_id, True)]


def test_files_in_a_folder_that_the_owner_chose_are_not_removed(scene: Scene) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    projects = scene.simulator.state_dir / "projects"
    projects.mkdir()
    (projects / "thesis.txt").write_text("years of work")
    rewrite(scene, lambda entries: entries[f"mc-{agent}"].update(workspace=str(projects)))
    job = delete(scene, agent)
    assert job.result["removed"] is True
    assert f"mc-{agent}" not in scene.simulator.agents()
    assert (projects / "thesis.txt").exists()
    assert folder_of(scene, f"mc-{agent}").exists()
    assert str(projects) in job.warnings[0]
    assert str(folder_of(scene, f"mc-{agent}")) in job.warnings[0]


@pytest.mark.parametrize("where", ["", "/notes", "/.."], ids=["the same", "inside", "around"])
def test_files_in_a_folder_that_another_agent_uses_are_not_removed(scene: Scene, where: str) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    own = folder_of(scene, f"mc-{agent}")
    rewrite(scene, lambda entries: entries.update({"bot": {"name": "Bot", "workspace": f"{own}{where}/"}}))
    job = delete(scene, agent)
    assert (job.result["removed"], own.exists()) == (True, True)
    assert "is also used by bot" in job.warnings[0]
    assert "bot" in scene.simulator.agents()


def test_files_in_a_folder_that_another_agent_uses_through_a_link_are_not_removed(scene: Scene) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    own, link = folder_of(scene, f"mc-{agent}"), scene.simulator.state_dir / "link"
    link.symlink_to(own)
    rewrite(scene, lambda entries: entries.update({"bot": {"name": "Bot", "workspace": str(link)}}))
    job = delete(scene, agent)
    assert (job.result["removed"], own.exists()) == (True, True)
    assert f"is also used by bot under another path ({link})" in job.warnings[0]


def test_a_folder_that_the_gateway_spells_otherwise_is_still_ours(scene: Scene) -> None:
    scene.execute("UPDATE gateways SET workspace_root = '~/.openclaw/'")
    agents = [scene.agent(name) for name in ("Ann", "Bob")]
    scene.provision(*agents)
    resolved = scene.row(
        "SELECT resolved_workspace FROM provisioner.agent_places WHERE agent_id = :id", id=agents[1]
    )[0]
    home = scene.simulator.state_dir / "home" / ".openclaw"
    assert resolved == str(home / f"workspace-mc-{agents[1]}")
    delete(scene, agents[0])  # 2026.2 writes out the ~ of all entries
    with scene.counting() as costs:
        assert scene.sync(include_main=False).status == "succeeded"
    assert costs.calls["config.patch"] == 0
    job = delete(scene, agents[1])
    assert (job.warnings, list(home.iterdir())) == ([], [])


def test_what_the_gateway_could_not_clean_up_is_said(scene: Scene) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    failed = {"path": "/srv/ws", "reason": "EACCES: permission denied"}
    payload = {"ok": True, "agentId": f"mc-{agent}", "removedBindings": 2, "removed": [], "failed": [failed]}
    scene.simulator.faults.schedule(Fault(Garble(json.dumps(payload)), method="agents.delete"))
    job = delete(scene, agent)
    (warning,) = job.warnings
    assert "could not remove /srv/ws" in warning
    assert "EACCES" in warning
    assert "2 of its owner's bindings" in warning
    purge = scene.agent("Bob")
    provision(scene, purge)
    payload = {
        "ok": True,
        "agentId": "x",
        "removedBindings": 0,
        "removed": [],
        "failed": [],
        "purgeFailed": True,
    }
    scene.simulator.faults.schedule(Fault(Garble(json.dumps(payload)), method="agents.delete"))
    assert "could not purge the sessions" in delete(scene, purge).warnings[0]


def test_places_on_gateways_that_are_gone_hold_nothing_up(scene: Scene) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    gone = uuid4()
    scene.execute(
        "INSERT INTO provisioner.agent_places (agent_id, gateway_id, openclaw_id, session_key)"
        " VALUES (:agent, :gateway, 'mc-x', 'agent:mc-x:main')",
        agent=agent,
        gateway=gone,
    )
    assert provision(scene, agent).warnings == []
    assert f"Gateway {gone}" in delete(scene, agent).warnings[0]
    assert [live for _, live in places(scene, agent)] == [False, False]


def test_a_worker_that_is_stopped_calls_no_entry_gone_that_is_there(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = scene.agent("Ann")
    provision(scene, agent)
    with scene.engine.connect() as connection:
        record = load_agent(connection, agent, main=True)
    client = scene.services.clients.client(record.address)
    hello = client.hello()
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    live = LiveRoster.of(dialect, client.call("config.get"))
    stopped = Event()
    stopped.set()
    monkeypatch.setattr(removals, "shutting_down", stopped)
    assert not removals.is_gone(client, live, record.openclaw_id)
    assert removals.is_gone(client, live, "mc-nobody")
