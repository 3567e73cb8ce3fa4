"""Agents that are on their gateway already come under care, and only a token is written (rules.md 48)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from sqlalchemy import Connection

from models import Agent
from tests.integration.sync.scene import Scene, on, on_one_release
from worker.agents import adopt_job, agent_context, workspace_apply
from worker.agents.workspace_plan import plan_workspace
from worker.errors import TransientError
from worker.jobs.intake import accept_agent_job
from worker.jobs.messages import agent_message
from worker.jobs.requests import AdoptAgent, EnsureBoardLead, Request, SyncHeartbeats
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.job_agents import start_single
from worker.jobs.store.jobs import enqueue
from worker.jobs.store.retrying import retry
from worker.lab.simulator import Fault, Simulator
from worker.lab.simulator.faults import Garble, Refuse
from worker.records.adoption import agent_to_become
from worker.records.agent_rows import ensure_board_lead, ensure_main_agent
from worker.records.agent_settings import set_settings, unset_settings
from worker.records.places import history_of
from worker.workspace.tokens import find_token, token_values, verify_token

NOTES = "# Research\n\n## Tools\n\nThe red printer is on the second floor.\n\n### Coffee\n\nBlack."


def carrier_of(scene: Scene) -> str:
    return "AGENTS.md" if scene.simulator.release.roster_is_map else "TOOLS.md"


def owners_agents(scene: Scene, *names: str, **entry: Any) -> dict[str, Path]:
    """The gateway's owner adds agents to openclaw.json and writes into their files; returns their folders."""
    folders = {name: scene.simulator.state_dir / "own" / name for name in names}
    entries = {name: {"workspace": str(folder), **entry} for name, folder in folders.items()}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / carrier_of(scene)).write_text(NOTES)
        (folder / "SOUL.md").write_text("Mine alone.")
        (folder / "diary.txt").write_text("Dear diary")
    document = json.loads(scene.simulator.config_path.read_text())
    agents = document.setdefault("agents", {})
    if scene.simulator.release.roster_is_map:
        agents["ownership"] = "explicit"
        agents["entries"] = {"main": {}, **agents.get("entries", {}), **entries}
    else:
        listed = agents.get("list") or [{"id": "main"}]
        agents["list"] = [*listed, *({"id": name, **each} for name, each in entries.items())]
    scene.save("openclaw.json", document)
    return folders


def owners_agent(scene: Scene, name: str = "research", **entry: Any) -> Path:
    """The same with one agent."""
    return owners_agents(scene, name, **entry)[name]


def config(scene: Scene) -> str:
    return scene.simulator.config_path.read_text()


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}


def adopt(scene: Scene, openclaw_id: str = "research", *, ok: bool = True, **options: Any) -> Any:
    given = {"board_id": scene.fleet.board_id} if "agent_id" not in options else {}
    given |= {"gateway_id": scene.fleet.gateway_id}
    job_id = scene.ask("adopt_agent", openclaw_id=openclaw_id, **{"dry_run": False, **given, **options})
    scene.serve()
    job = scene.job(job_id)
    assert (job.status == "succeeded") is ok, job.error
    return job


def agent_row(scene: Scene, agent_id: UUID | str) -> Any:
    return scene.row("SELECT * FROM agents WHERE id = :id", id=agent_id)


def actions(job: Any) -> dict[str, str]:
    return {name: file["action"] for name, file in job.result["files"].items()}


def test_an_owners_agent_gets_its_token_and_nothing_else_changes(scene: Scene) -> None:
    folder, carrier = owners_agent(scene, model={"primary": "stub/m"}), carrier_of(scene)
    before, entries = files(folder), config(scene)

    planned = adopt(scene, dry_run=True, diff=True)
    assert (files(folder), config(scene)) == (before, entries)
    assert actions(planned)["SOUL.md"] == "conflict"
    assert actions(planned)[carrier] == "update"
    assert actions(planned).get("diary.txt") == ("theirs" if carrier == "AGENTS.md" else None)
    assert actions(planned)["MEMORY.md"] == "absent"
    assert "+## Tools" in planned.result["files"][carrier]["diff"]
    assert "Mine alone." in planned.result["files"]["SOUL.md"]["diff"]
    assert scene.row("SELECT count(*) AS n FROM agents").n == 0
    assert scene.row("SELECT count(*) AS n FROM provisioner.agent_places").n == 0

    done = adopt(scene)
    assert config(scene) == entries
    after = files(folder)
    text = after.pop(carrier)
    assert text.startswith(f"{NOTES}\n\n## Tools\n")
    assert {**before, carrier: text} == {**after, carrier: text}
    token = find_token(text, section=True)
    assert token is not None
    assert len([value for value in token_values(text) if value == token]) == 1
    agent = agent_row(scene, done.result["agent_id"])
    assert (agent.name, agent.status, agent.board_id) == ("research", "online", scene.fleet.board_id)
    assert agent.openclaw_session_id == "agent:research:main"
    assert verify_token(token, agent.agent_token_hash)
    assert done.result["workspace_path"] == str(folder)
    assert (done.result["token"], done.result["woken"]) == ("minted", False)
    methods = {call.method for call in scene.simulator.calls}
    assert not methods & {"config.patch", "sessions.reset", "sessions.patch", "chat.send"}

    again = adopt(scene)
    assert (again.result["agent_id"], again.result["token"]) == (done.result["agent_id"], "reused")
    assert [job.result["created"] for job in (planned, done, again)] == [True, True, False]
    assert files(folder)[carrier] == text


def test_care_goes_on_without_touching_what_is_the_owners(scene: Scene) -> None:
    folder, carrier = owners_agent(scene), carrier_of(scene)
    agent_id = UUID(adopt(scene).result["agent_id"])
    entries, text = config(scene), (folder / carrier).read_text()

    assert scene.sync(include_main=False, overwrite=True).status == "succeeded"
    with scene.counting() as costs:
        job = scene.sync(include_main=False)
    assert (job.status, job.result["files_written"]) == ("succeeded", 0)
    assert costs.calls["agents.files.get"] == 0
    assert config(scene) == entries
    assert ((folder / carrier).read_text(), (folder / "SOUL.md").read_text()) == (text, "Mine alone.")
    assert scene.rows(job.id)["research"].files["SOUL.md"]["action"] == "conflict"
    assert (folder / "MEMORY.md").exists()  # ours alone: a sync creates it, like any agent's

    more = f"{text}\nAnd the owner wrote this below.\n"
    (folder / carrier).write_text(f"# A new heading\n\n{more}")
    scene.execute("UPDATE boards SET name = 'Landing' WHERE id = :id", id=scene.fleet.board_id)
    assert scene.sync(include_main=False).status == "succeeded"
    assert (folder / carrier).read_text() == f"# A new heading\n\n{more}"
    assert agent_row(scene, agent_id).agent_token_hash is not None

    job_id = scene.ask("provision_agent", agent_id=agent_id, wake=False)
    scene.serve()
    assert scene.job(job_id).result["openclaw_id"] == "research"
    rotated = scene.ask("update_agent", agent_id=agent_id, wake=False, rotate_tokens=True)
    scene.serve()
    assert scene.job(rotated).result["token"] == "rotated"
    now = (folder / carrier).read_text()
    old, new = find_token(text, section=True), find_token(now, section=True)
    assert now == f"# A new heading\n\n{more}".replace(str(old), str(new))
    assert config(scene) == entries


def test_an_agent_of_ours_whose_token_verifies_keeps_it_and_nothing_is_written(scene: Scene) -> None:
    agent = scene.agent("Ann")
    scene.provision(agent)
    openclaw_id = f"mc-{agent}"
    for table in ("agent_places", "agent_files", "agent_credentials"):  # as another program provisioned it
        scene.execute(f"DELETE FROM provisioner.{table}")
    folder, entries = scene.simulator.workspace(openclaw_id), config(scene)
    (folder / "SOUL.md").write_text("Changed.")
    before, written = files(folder), agent_row(scene, agent).agent_token_hash

    with scene.counting() as costs:
        done = adopt(scene, openclaw_id, agent_id=agent)
    assert (done.result["token"], done.result["created"]) == ("reused", False)
    assert (files(folder), config(scene), agent_row(scene, agent).agent_token_hash) == (
        before,
        entries,
        written,
    )
    assert not {"agents.files.set", "cron.scratch.set", "config.patch"} & set(costs.calls)
    assert actions(done)["IDENTITY.md"] == "unchanged"
    assert actions(done)["SOUL.md"] == "conflict"

    # What was equal is ours: it follows its row. What differed is not. The entry is this row's own.
    scene.execute("UPDATE agents SET name = 'Bea', heartbeat_config = '{\"every\": \"30m\"}'")
    assert scene.sync(include_main=False).status == "succeeded"
    assert "Bea" in (folder / "IDENTITY.md").read_text()
    assert (folder / "SOUL.md").read_text() == "Changed."
    assert scene.simulator.agents()[openclaw_id]["name"] == "Bea"


@on_one_release
def test_only_a_file_that_is_named_is_replaced_and_is_ours_from_then_on(scene: Scene) -> None:
    folder = owners_agent(scene)
    listed = {"defaultId": "main", "mainKey": "desk", "agents": [{"id": "main"}, {"id": "research"}]}
    scene.simulator.faults.schedule(Fault(Garble(json.dumps(listed)), method="agents.list"))
    done = adopt(scene, overwrite_files=["SOUL.md", "AGENTS.md", "SOLE.md"])
    assert "There is no SOLE.md of ours" in " ".join(done.warnings)
    agent = UUID(done.result["agent_id"])
    assert (actions(done)["SOUL.md"], actions(done)["AGENTS.md"]) == ("update", "update")
    assert (folder / "AGENTS.md").read_text().count("## Tools") == 1
    assert "Mine alone." not in (folder / "SOUL.md").read_text()
    (folder / "USER.md").write_text("The owner's words.")
    scene.execute("UPDATE agents SET soul_template = 'In {{ workspace_path }}, {{ session_key }}.'")
    for options in ({}, {"overwrite": True}):
        job_id = scene.ask("update_agent", agent_id=agent, wake=False, **options)
        scene.serve()
        assert actions(scene.job(job_id))["USER.md"] == "conflict"
    assert (folder / "SOUL.md").read_text() == f"In {folder}, agent:research:desk."
    assert (folder / "USER.md").read_text() == "The owner's words."


def test_what_cannot_be_adopted_is_said_by_name_and_nothing_is_done(scene: Scene) -> None:
    folder, carrier = owners_agent(scene), carrier_of(scene)
    ann, bob = scene.agent("Ann"), scene.agent("Bob")
    scene.provision(ann)
    before, entries = files(folder), config(scene)
    gateway = scene.fleet.gateway_id
    other = scene.fleet.add_gateway("other", "ws://127.0.0.1:9")
    elsewhere = scene.fleet.add_board("Elsewhere", gateway_id=other)
    twin = scene.fleet.add_gateway("twin", scene.simulator.url, scene.simulator.token)
    refused: dict[str, dict[str, Any]] = {
        f"Gateway 'workshop' has no agent nobody: it has main, mc-{ann}, research.": {
            "openclaw_id": "nobody"
        },
        f"Gateway 'workshop' has mc-{ann} as agent 'Ann' ({ann}) already": {"openclaw_id": f"mc-{ann}"},
        f"Agent 'Ann' ({ann}) lives as mc-{ann} already": {"agent_id": ann},
        f"agent 'Bob' ({bob}) is not of board {elsewhere}": {"agent_id": bob, "board_id": elsewhere},
        "openclaw_id: !! is no id of an agent": {"openclaw_id": "!!"},
        f"board 'Elsewhere' ({elsewhere}) is not on gateway": {"board_id": elsewhere},
        f"agent 'Bob' ({bob}) is not on gateway 'twin' ({twin})": {"agent_id": bob, "gateway_id": twin},
        f"There is no agent with agent_id {elsewhere}": {"agent_id": elsewhere},
    }
    for sentence, options in refused.items():
        given = {"gateway_id": gateway, "openclaw_id": "research", "dry_run": False, **options}
        if "agent_id" not in given and "board_id" not in given:
            given["board_id"] = scene.fleet.board_id
        job_id = scene.ask("adopt_agent", **given)
        scene.serve()
        assert (scene.job(job_id).status, sentence in scene.job(job_id).error) == ("failed", True), (
            sentence,
            scene.job(job_id).error,
        )
    board = scene.fleet.add_board("Twins", gateway_id=twin)
    error = adopt(scene, f"mc-{ann}", gateway_id=twin, board_id=board, ok=False).error
    assert f"as agent 'Ann' ({ann}) already" in error
    job_id = scene.ask("adopt_gateway", gateway_id=twin, board_id=board)
    scene.serve()
    assert scene.job(job_id).result["in_care"] == [f"mc-{ann}"]
    scene.execute("DELETE FROM provisioner.agent_places")  # she lives there even without a record
    assert f"Agent 'Ann' ({ann}) lives as mc-{ann} already" in adopt(scene, agent_id=ann, ok=False).error

    adopt(scene, agent_id=bob)
    assert f"as agent 'Bob' ({bob}) already" in adopt(scene, ok=False).error
    (folder / carrier).write_text(f"AUTH_TOKEN=another-programs\n\n{NOTES}")
    scene.execute("DELETE FROM agents WHERE id = :id", id=bob)
    error = adopt(scene, ok=False).error
    assert f"its {carrier} has another AUTH_TOKEN outside" in error
    assert f"--overwrite-file {carrier}" in error
    (folder / carrier).write_text(NOTES)
    assert (files(folder), config(scene)) == (before, entries)
    assert scene.row("SELECT count(*) AS n FROM agents").n == 1
    with scene.engine.connect() as connection:  # what was refused left nothing on record
        new = uuid5(gateway, "research")
        assert history_of(connection, new).live + history_of(connection, new).closed == ()
    adopt(scene)


def test_main_is_adopted_as_it_is_and_never_taken_off(scene: Scene) -> None:
    folder = scene.simulator.workspace("main")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / carrier_of(scene)).write_text(NOTES)
    entries = config(scene)
    main = scene.main()
    done = adopt(scene, "main", agent_id=main)
    assert (done.result["session_key"], done.result["workspace_path"]) == ("agent:main:main", str(folder))
    for kind, options in (("sync_gateway", {}), ("provision_gateway_main", {"wake": False})):
        job_id = scene.ask(kind, gateway_id=scene.fleet.gateway_id, **options)
        scene.serve()
        assert scene.job(job_id).status == "succeeded", scene.job(job_id).error
    with scene.engine.begin() as connection:
        beats = enqueue(connection, SyncHeartbeats(gateway_id=scene.fleet.gateway_id)).job_id
    scene.begin_heartbeats(beats)
    scene.serve()
    scene.serve_until_ended(beats)
    assert scene.job(beats).status == "succeeded", scene.job(beats).error
    row = agent_row(scene, main)
    assert (row.openclaw_session_id, config(scene)) == ("agent:main:main", entries)
    kept = files(folder)

    job_id = scene.ask("delete_agent", agent_id=main, delete_files=True)
    scene.serve()
    job = scene.job(job_id)
    assert (job.status, job.result["removed"]) == ("succeeded", False)
    assert any("which is never removed" in warning for warning in job.warnings)
    assert (files(folder), config(scene)) == (kept, entries)
    assert scene.row("SELECT count(*) AS n FROM agents").n == 0
    assert scene.row("SELECT count(*) AS n FROM provisioner.agent_places WHERE until IS NULL").n == 0


@pytest.mark.parametrize("said", [None, True])
def test_a_delete_leaves_an_adopted_agents_files_unless_it_says_otherwise(
    scene: Scene, said: bool | None
) -> None:
    folder = owners_agent(scene)
    agent = UUID(adopt(scene).result["agent_id"])
    job_id = scene.ask("delete_agent", agent_id=agent, **({} if said is None else {"delete_files": said}))
    scene.serve()
    job = scene.job(job_id)
    assert (job.status, job.result["removed"]) == ("succeeded", True), job.error
    assert "research" not in scene.simulator.agents()
    assert folder.exists() is (said is None)
    assert scene.row("SELECT count(*) AS n FROM agents").n == 0


@on_one_release
def test_another_mission_controls_agent_keeps_the_id_made_from_a_uuid(scene: Scene) -> None:
    openclaw_id = f"lead-{uuid4()}"
    folder = owners_agent(scene, openclaw_id, heartbeat={"every": "2h"})
    token = "0123456789abcdef0123456789abcdef"
    (folder / "AGENTS.md").write_text(f"Be kind.\n\n## Tools\n\nAUTH_TOKEN={token}\n\n## After\n\nMore.\n")
    entries = config(scene)
    agent = UUID(adopt(scene, openclaw_id).result["agent_id"])
    text = (folder / "AGENTS.md").read_text()
    assert text.startswith("Be kind.\n\n## Tools\n\nMission Control")
    assert text.endswith("\n\n## After\n\nMore.\n")
    assert (token in text, len(set(token_values(text)))) == (False, 1)
    for kind, target in (("provision_agent", "agent_id"), ("update_agent", "agent_id")):
        job_id = scene.ask(kind, **{target: agent}, wake=False)
        scene.serve()
        assert scene.job(job_id).result["openclaw_id"] == openclaw_id
    scene.execute("UPDATE agents SET name = 'Renamed'")
    assert scene.sync(include_main=False).status == "succeeded"
    now = (folder / "AGENTS.md").read_text()
    assert (config(scene), now) == (entries, text.replace(f'"{openclaw_id}"', '"Renamed"'))


def test_a_whole_gateway_gets_tokens_and_nothing_else(scene: Scene) -> None:
    carrier = carrier_of(scene)
    ann = scene.agent("Ann")
    scene.provision(ann)
    folders = owners_agents(scene, *(f"owner-{n:02}" for n in range(8)))
    before = {name: files(folder) for name, folder in folders.items()}
    entries = config(scene)
    ask = {"gateway_id": scene.fleet.gateway_id, "board_id": scene.fleet.board_id}
    with scene.counting() as costs:
        job_id = scene.ask("adopt_gateway", **ask, dry_run=False)
        scene.serve()
    job = scene.job(job_id)
    assert (job.status, job.result["in_care"]) == ("succeeded", [f"mc-{ann}"])
    jobs = {each["openclaw_id"]: UUID(each["job_id"]) for each in job.result["jobs"]}
    assert set(jobs) == {*folders, "main"}
    tokens = set()
    for name, folder in folders.items():
        child = scene.job(jobs[name])
        assert (child.status, child.parent_job_id) == ("succeeded", job_id), child.error
        after = files(folder)
        text = after.pop(carrier)
        assert {**after, carrier: NOTES} == before[name]
        assert text.startswith(NOTES)
        tokens.add(find_token(text, section=True))
    assert len(tokens) == 8
    assert config(scene) == entries
    assert costs.calls["agents.files.set"] == 9
    assert not {"config.patch", "sessions.patch", "sessions.reset", "chat.send"} & set(costs.calls)

    again = scene.ask("adopt_gateway", **ask, dry_run=False)
    scene.serve()
    assert scene.job(again).result["jobs"] == []
    with scene.counting() as costs:
        assert scene.sync(include_main=False).status == "succeeded"
    assert costs.calls["config.patch"] == 0
    assert config(scene) == entries


@pytest.mark.parametrize("step", ["commit", "record_files", "finish"])
@on_one_release
def test_a_worker_that_dies_at_any_step_leaves_one_token_and_one_row(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Each step that ends in the database is broken off once, as by a worker's death."""
    folder = owners_agent(scene)
    module = agent_context if step == "finish" else workspace_apply
    real, broken = getattr(module, step), list[str]()

    def dies(*given: Any, **named: Any) -> Any:
        if not broken:
            broken.append(step)
            raise TransientError("the worker is gone")
        return real(*given, **named)

    monkeypatch.setattr(module, step, dies)
    job_id = scene.ask(
        "adopt_agent",
        gateway_id=scene.fleet.gateway_id,
        board_id=scene.fleet.board_id,
        openclaw_id="research",
        dry_run=False,
    )
    scene.serve()
    assert (broken, scene.job(job_id).status) == ([step], "running")
    assert scene.row("SELECT count(*) AS n FROM agents").n == (step == "finish")
    text = (folder / "AGENTS.md").read_text()
    error = adopt(scene, agent_id=scene.agent("Bob"), ok=False).error
    assert ("is just being adopted as that" in error) is (step != "finish")
    scene.execute("DELETE FROM agents WHERE name = 'Bob'")
    scene.serve_until_ended(job_id)
    job = scene.job(job_id)
    assert job.status == "succeeded", job.error
    assert (folder / "AGENTS.md").read_text() == text
    agent = agent_row(scene, job.result["agent_id"])
    assert verify_token(str(find_token(text, section=True)), agent.agent_token_hash)
    assert scene.row("SELECT count(*) AS n FROM agents").n == 1
    assert scene.row("SELECT pending_hash FROM provisioner.agent_credentials").pending_hash is None


@on_one_release
def test_two_requests_for_one_agent_make_one_and_two_rows_do_not_share_it(scene: Scene) -> None:
    folder = owners_agent(scene)
    bob = scene.agent("Bob")
    ask = {"gateway_id": scene.fleet.gateway_id, "openclaw_id": "research", "dry_run": False}
    jobs = [scene.ask("adopt_agent", **ask, board_id=scene.fleet.board_id) for _ in range(2)]
    jobs.append(scene.ask("adopt_agent", **ask, agent_id=bob))
    # Accepted while the agent has no row yet, by a worker that serves it once it has one.
    with scene.engine.begin() as connection:
        for_another = AdoptAgent.model_validate({**ask, "board_id": scene.fleet.add_board("Another")})
        another = enqueue(connection, for_another).job_id
        start_single(connection, another, agent_to_become(connection, for_another), for_another)
    scene.serve()
    scene.serve_until_ended(*jobs, another)
    ends = [scene.job(job) for job in jobs]
    assert [job.status for job in ends] == ["succeeded", "succeeded", "failed"]
    assert f"as agent 'research' ({ends[0].result['agent_id']}) already" in scene.job(another).error
    assert ends[0].result["agent_id"] == ends[1].result["agent_id"]
    text = (folder / "AGENTS.md").read_text()
    assert verify_token(
        str(find_token(text, section=True)), agent_row(scene, ends[0].result["agent_id"]).agent_token_hash
    )
    assert agent_row(scene, bob).agent_token_hash is None
    with scene.engine.begin() as connection:
        again = retry(connection, jobs[2], requested_by=None)
    scene.serve()
    assert scene.job(again).error == ends[2].error


@on_one_release
def test_agents_that_share_a_folder_are_refused(scene: Scene) -> None:
    folder = owners_agent(scene)
    document = json.loads(config(scene))
    document["agents"]["entries"]["shop"] = {"workspace": f"{folder}/"}
    scene.save("openclaw.json", document)
    before = files(folder)
    for openclaw_id, other in (("research", "shop"), ("shop", "research")):
        error = adopt(scene, openclaw_id, ok=False).error
        assert f"Agent {openclaw_id} has its workspace, {folder}" in error
        assert f"in common with {other}," in error
    assert files(folder) == before


@on_one_release
def test_settings_reach_an_adopted_entry_and_nothing_else_of_it_changes(scene: Scene) -> None:
    owners_agent(scene, heartbeat={"every": "2h"}, identity={"name": "The Researcher"})
    agent = UUID(adopt(scene).result["agent_id"])
    row = agent_row(scene, agent)
    assert (row.name, row.heartbeat_config) == ("The Researcher", {"every": "2h"})
    before = json.loads(config(scene))
    with scene.engine.begin() as connection:
        set_settings(connection, "agent", agent, {"tools.profile": "minimal"}, locked=False)
    scene.execute("UPDATE agents SET name = 'Renamed', heartbeat_config = '{\"every\": \"5m\"}'")
    assert scene.sync(include_main=False).status == "succeeded"
    after = json.loads(config(scene))
    assert after["agents"]["entries"]["research"].pop("tools") == {"profile": "minimal"}
    assert (after["agents"], after.get("channels")) == (before["agents"], before.get("channels"))
    with scene.engine.begin() as connection:
        unset_settings(connection, "agent", agent, "tools")
    assert scene.sync(include_main=False).status == "succeeded"
    assert json.loads(config(scene))["agents"] == before["agents"]


@on_one_release
def test_a_file_named_later_is_replaced_and_one_that_is_kept_is_no_conflict(scene: Scene) -> None:
    folder = owners_agent(scene)
    agent = UUID(adopt(scene).result["agent_id"])
    (folder / "IDENTITY.md").write_text("I am who I am.")
    job_id = scene.ask(
        "update_agent", agent_id=agent, wake=False, overwrite_files=["SOUL.md"], keep_files=["IDENTITY.md"]
    )
    scene.serve()
    done = actions(scene.job(job_id))
    assert (done["SOUL.md"], done["IDENTITY.md"]) == ("update", "preserved")
    assert "Mine alone." not in (folder / "SOUL.md").read_text()
    job = scene.sync(include_main=False, dry_run=True, diff=True)
    found = scene.rows(job.id)["research"].files
    assert (found["SOUL.md"]["action"], found["IDENTITY.md"]["action"]) == ("unchanged", "conflict")
    assert "-I am who I am." in found["IDENTITY.md"]["diff"]


@on_one_release
def test_nothing_is_adopted_while_an_older_worker_may_take_it_for_one_of_ours(scene: Scene) -> None:
    folder = owners_agent(scene)
    before = files(folder)
    scene.execute("INSERT INTO provisioner.workers (name, revision, seen_at) VALUES ('old', '0021', now())")
    assert adopt(scene, dry_run=True).status == "succeeded"
    assert "which knows nothing of adopted agents" in adopt(scene, ok=False).error
    assert files(folder) == before


@on_one_release
def test_an_adopted_id_passes_to_nobody_and_its_agent_leaves_no_other(scene: Scene) -> None:
    late = uuid4()
    folder = owners_agent(scene, f"mc-{late}")
    agent = UUID(adopt(scene, f"mc-{late}").result["agent_id"])
    scene.fleet._add(Agent(**columns_of(scene, agent), id=late, name="Late"))
    text, entries = (folder / "AGENTS.md").read_text(), config(scene)
    job_id = scene.ask("provision_agent", agent_id=late, wake=False)
    scene.serve()
    assert f"Its OpenClaw id mc-{late} belongs to agent" in scene.job(job_id).error
    assert ((folder / "AGENTS.md").read_text(), config(scene)) == (text, entries)

    owners_agent(scene, f"mc-{agent}")  # as if it had been a member there
    entries = config(scene)
    for kind, target in (("update_agent", {"agent_id": agent, "wake": False}), ("sync_gateway", {})):
        job_id = scene.ask(kind, **{"gateway_id": scene.fleet.gateway_id, **target})
        scene.serve()
        assert scene.job(job_id).kind == kind
        assert config(scene) == entries
    with scene.engine.connect() as connection:
        assert [place.openclaw_id for place in history_of(connection, agent).live] == [f"mc-{late}"]


def columns_of(scene: Scene, agent_id: UUID) -> dict[str, Any]:
    """What the rows of two agents of one board have in common."""
    row = agent_row(scene, agent_id)
    names = ("board_id", "gateway_id", "status", "is_board_lead", "created_at", "updated_at")
    return {name: getattr(row, name) for name in names}


@on_one_release
def test_an_agent_that_moves_while_its_job_waits_is_not_adopted(scene: Scene) -> None:
    folder = owners_agent(scene)
    bob = scene.agent("Bob")
    before = files(folder)
    job_id = scene.ask(
        "adopt_agent",
        gateway_id=scene.fleet.gateway_id,
        openclaw_id="research",
        agent_id=bob,
        dry_run=False,
    )
    accept(scene, job_id)
    other = scene.fleet.add_gateway("other", "ws://127.0.0.1:9")
    board = scene.fleet.add_board("Elsewhere", gateway_id=other)
    scene.execute("UPDATE agents SET gateway_id = :g, board_id = :b WHERE id = :id", g=other, b=board, id=bob)
    scene.serve_until_ended(job_id)
    assert "was put on gateway 'other' meanwhile" in scene.job(job_id).error
    assert files(folder) == before
    assert agent_row(scene, bob).agent_token_hash is None


def accept(scene: Scene, job_id: UUID) -> None:
    """Bring the job to where its row waits to be executed."""
    task, kwargs, task_id = scene.messages.pop(0)
    assert (task, task_id) == ("tasks.adopt_agent", str(job_id))

    def agent_of(connection: Connection, request: Request) -> UUID:
        assert isinstance(request, AdoptAgent)
        return agent_to_become(connection, request)

    accept_agent_job(scene.engine, "adopt_agent", str(job_id), (), kwargs, agent_of)


@on("2026.2.12", "2026.9.6")
def test_what_the_owner_writes_at_that_moment_is_not_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, carrier = owners_agent(scene), carrier_of(scene)
    plans: list[Any] = []

    def plan_and_edit(*given: Any, **named: Any) -> Any:
        plans.append(plan_workspace(*given, **named))
        if len(plans) == 1:
            (folder / carrier).write_text(f"{NOTES} Written meanwhile.")
        return plans[-1]

    monkeypatch.setattr(workspace_apply, "plan_workspace", plan_and_edit)
    adopt(scene)
    assert len(plans) == 2
    assert (folder / carrier).read_text().startswith(f"{NOTES} Written meanwhile.\n\n## Tools\n")


@on_one_release
def test_a_row_by_sql_is_enough(scene: Scene) -> None:
    owners_agent(scene)
    job_id = uuid4()
    scene.execute(
        "INSERT INTO provisioner.jobs (id, kind, gateway_id, board_id, options)"
        """ VALUES (:id, 'adopt_agent', :g, :b, '{"openclaw_id": "Research", "dry_run": false}')""",
        id=job_id,
        g=scene.fleet.gateway_id,
        b=scene.fleet.board_id,
    )
    scene.serve()
    job = scene.job(job_id)
    assert (job.status, job.board_id) == ("succeeded", scene.fleet.board_id), job.error
    assert job.result["openclaw_id"] == "research"


@on_one_release
def test_an_adopted_agent_that_moves_leaves_its_files(scene: Scene, tmp_path: Path) -> None:
    folder = owners_agent(scene)
    agent = UUID(adopt(scene).result["agent_id"])
    text = (folder / "AGENTS.md").read_text()
    with Simulator("2026.9.6", token="0ther-t0ken", state_dir=tmp_path / "other") as other:
        gateway = scene.fleet.add_gateway("other", other.url, "0ther-t0ken", str(other.state_dir / "ws"))
        board = scene.fleet.add_board("Elsewhere", gateway_id=gateway)
        move = "UPDATE agents SET gateway_id = :g, board_id = :b WHERE id = :id"
        scene.execute(move, g=gateway, b=board, id=agent)
        job_id = scene.ask("provision_agent", agent_id=agent, wake=False)
        scene.serve()
        scene.serve_until_ended(job_id)
        assert scene.job(job_id).status == "succeeded", scene.job(job_id).error
        assert f"mc-{agent}" in other.agents()
    assert "research" not in scene.simulator.agents()
    assert (folder / "AGENTS.md").read_text() == text


@on_one_release
def test_repairs_leave_an_adopted_leads_name_and_session_key(scene: Scene) -> None:
    folder = owners_agent(scene)
    lead, main = scene.agent("Grace", lead=True), scene.main()
    scene.execute("UPDATE agents SET name = 'Boss' WHERE id = :id", id=main)
    adopt(scene, agent_id=lead)
    adopt(scene, "main", agent_id=main)
    names = {lead: ("Grace", "agent:research:main"), main: ("Boss", "agent:main:main")}
    with scene.engine.begin() as connection:
        request = EnsureBoardLead(board_id=scene.fleet.board_id)
        assert ensure_board_lead(connection, request) == (lead, False)
        assert ensure_main_agent(connection, scene.fleet.gateway_id) == main
    for agent, expected in names.items():
        row = agent_row(scene, agent)
        assert (row.name, row.openclaw_session_id) == expected
    with scene.engine.begin() as connection:
        ensure_board_lead(connection, request.model_copy(update={"agent_name": "Ada"}))
    row = agent_row(scene, lead)
    assert (row.name, row.openclaw_session_id) == ("Ada", "agent:research:main")
    assert folder.exists()


@on("2026.3.13")
def test_a_session_goes_on_where_it_shows_an_agent_its_files_as_they_were(scene: Scene) -> None:
    owners_agent(scene)
    job = adopt(scene)
    assert any("so it has its token only then" in warning for warning in job.warnings)
    assert not {"sessions.reset", "chat.send"} & {call.method for call in scene.simulator.calls}


@pytest.mark.parametrize("ends", ["before", "after"])
@pytest.mark.parametrize("becomes", ["a row", "a new row"])
@on_one_release
def test_an_adoption_that_is_cancelled_leaves_no_place(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, becomes: str, ends: str
) -> None:
    """It ends before or after its token is written, but never committed."""
    folder = owners_agent(scene)
    module, step = (adopt_job, "apply_workspace") if ends == "before" else (workspace_apply, "commit")

    def dies(*_: Any, **__: Any) -> Any:
        raise TransientError("the worker is gone")

    ask = {"gateway_id": scene.fleet.gateway_id, "openclaw_id": "research", "dry_run": False}
    bob = scene.agent("Bob")
    row = {"agent_id": bob} if becomes == "a row" else {"board_id": scene.fleet.board_id}
    with monkeypatch.context() as patch:
        patch.setattr(module, step, dies)
        job_id = scene.ask("adopt_agent", **ask, **row)
        scene.serve()
    with scene.engine.begin() as connection:
        cancel(connection, job_id)
    scene.serve_until_ended(job_id)
    assert scene.job(job_id).status == "cancelled"
    assert scene.row("SELECT count(*) AS n FROM provisioner.agent_places WHERE until IS NULL").n == 0

    # It is the owner's: neither the agent's own jobs nor a late delete of what it was to become touch it.
    entries, text = config(scene), (folder / "AGENTS.md").read_text()
    unborn = scene.row("SELECT agent_id FROM provisioner.agent_places").agent_id
    if unborn != bob:
        late = scene.ask("delete_agent", agent_id=unborn, gateway_id=scene.fleet.gateway_id)
        scene.serve()
        assert (scene.job(late).status, config(scene)) == ("succeeded", entries)
    scene.provision(bob)
    assert scene.simulator.workspace(f"mc-{bob}").exists()
    assert (folder / "AGENTS.md").read_text() == text
    if becomes == "a row":
        error = adopt(scene, agent_id=bob, ok=False).error
        assert f"lives as mc-{bob} already" in error
    again = adopt(scene)
    assert len(set(token_values((folder / "AGENTS.md").read_text()))) == 1
    assert agent_row(scene, again.result["agent_id"]).status == "online"


@on_one_release
def test_one_that_fails_once_the_token_is_its_own_is_adopted(scene: Scene) -> None:
    folder = owners_agent(scene)
    scene.simulator.faults.schedule(Fault(Refuse("INVALID_REQUEST", "no"), method="chat.send"))
    assert "refused chat.send" in adopt(scene, wake=True, ok=False).error
    agent = scene.row("SELECT id, agent_token_hash FROM agents")
    assert verify_token(str(find_token((folder / "AGENTS.md").read_text(), True)), agent.agent_token_hash)
    with scene.engine.connect() as connection:
        assert [place.openclaw_id for place in history_of(connection, agent.id).live] == ["research"]
    assert adopt(scene, wake=True).result["woken"] is True


@on_one_release
def test_an_agent_that_is_adopted_again_is_not_the_one_that_was_deleted(scene: Scene) -> None:
    """Late jobs of the deleted one, and layers of templates of its own, are not the new one's."""
    folder = owners_agent(scene)
    entries = config(scene)
    first = UUID(adopt(scene).result["agent_id"])
    late = {"agent_id": first, "gateway_id": scene.fleet.gateway_id}
    job_id = scene.ask("delete_agent", **late)
    scene.serve()
    assert scene.job(job_id).status == "succeeded"
    scene.save("openclaw.json", json.loads(entries))
    for adopted_again in (False, True):
        again = scene.ask("delete_agent", **late)
        scene.serve()
        assert scene.job(again).status == "succeeded"
        assert "research" in scene.simulator.agents()
        if not adopted_again:
            second = [UUID(adopt(scene).result["agent_id"]) for _ in range(2)]
            assert (second[0] == second[1], first in second) == (True, False)
    assert len(set(token_values((folder / "AGENTS.md").read_text()))) == 1


@on_one_release
def test_the_id_of_an_agent_that_is_being_deleted_may_be_adopted_by_another(scene: Scene) -> None:
    folder = owners_agent(scene)
    ann, bob = UUID(adopt(scene).result["agent_id"]), scene.agent("Bob")
    scene.execute("UPDATE agents SET status = 'deleting' WHERE id = :id", id=ann)
    assert adopt(scene, agent_id=bob).result["token"] == "minted"
    text = (folder / "AGENTS.md").read_text()
    job_id = scene.ask("delete_agent", agent_id=ann, delete_files=True)
    scene.serve()
    job = scene.job(job_id)
    assert (job.status, job.result["removed"]) == ("succeeded", False), job.error
    assert ("research" in scene.simulator.agents(), (folder / "AGENTS.md").read_text()) == (True, text)
    assert verify_token(str(find_token(text, section=True)), agent_row(scene, bob).agent_token_hash)


@on_one_release
def test_an_adopted_agent_that_moves_to_another_gateway_leaves_its_files(
    scene: Scene, tmp_path: Path
) -> None:
    folder = owners_agent(scene)
    agent = UUID(adopt(scene).result["agent_id"])
    with Simulator("2026.9.6", token="gateway-token", state_dir=tmp_path / "other") as other:
        gateway = scene.fleet.add_gateway("other", other.url, other.token)
        board = scene.fleet.add_board("There", gateway_id=gateway)
        scene.execute(
            "UPDATE agents SET gateway_id = :gateway, board_id = :board", gateway=gateway, board=board
        )
        before = files(folder)
        job_id = scene.ask("provision_agent", agent_id=agent, wake=False)
        scene.serve()
        scene.serve_until_ended(job_id)
        job = scene.job(job_id)
        assert (job.status, job.result["openclaw_id"]) == ("succeeded", f"mc-{agent}"), job.error
    assert "research" not in scene.simulator.agents()
    assert files(folder) == before


def test_a_file_that_is_not_utf_8_is_never_written_back_garbled(scene: Scene) -> None:
    folder, carrier = owners_agent(scene), carrier_of(scene)
    latin = "Café.\n".encode("latin-1")
    (folder / carrier).write_bytes(latin)
    error = adopt(scene, ok=False).error
    assert f"its {carrier} is not UTF-8 text" in error
    assert (folder / carrier).read_bytes() == latin
    agent = UUID(adopt(scene, overwrite_files=[carrier]).result["agent_id"])
    (folder / carrier).write_text(NOTES)
    scene.execute("DELETE FROM agents WHERE id = :id", id=agent)
    agent = UUID(adopt(scene).result["agent_id"])
    now = latin + (folder / carrier).read_bytes()
    (folder / carrier).write_bytes(now)
    scene.sync(include_main=False)
    (folder / "IDENTITY.md").write_bytes(latin + (folder / "IDENTITY.md").read_bytes())
    identity = (folder / "IDENTITY.md").read_bytes()

    assert (
        scene.sync(include_main=False).status == "succeeded"
    )  # the section is in step, so nothing is written
    scene.execute("UPDATE agents SET name = 'Bea'")
    job = scene.sync(include_main=False)
    assert f"its {carrier} is not UTF-8 text" in scene.rows(job.id)["Bea"].reason
    assert ((folder / carrier).read_bytes(), (folder / "IDENTITY.md").read_bytes()) == (now, identity)
    (folder / carrier).write_text(now.decode("latin-1"))
    job = scene.sync(include_main=False)
    (row,) = scene.rows(job.id).values()
    assert (row.status, row.files["IDENTITY.md"]["action"]) == ("succeeded", "conflict"), row.reason
    assert "it is not UTF-8 text" in " ".join(row.warnings)
    assert (folder / "IDENTITY.md").read_bytes() == identity
    assert "Bea" in (folder / carrier).read_text()
    settled = scene.ask("update_agent", agent_id=agent, wake=False, overwrite_files=["IDENTITY.md"])
    scene.serve()
    assert actions(scene.job(settled))["IDENTITY.md"] == "update"
    assert "Bea" in (folder / "IDENTITY.md").read_text()


@on_one_release
def test_to_adopt_a_gateway_takes_one_of_its_slots(scene: Scene) -> None:
    slots, gateway_id = scene.services.slots, scene.fleet.gateway_id
    taken = []
    while (slot := slots.acquire(gateway_id, agent_message(uuid4(), uuid4(), gateway_id))) is not None:
        taken.append(slot)
    arguments = {"gateway_id": gateway_id, "board_id": scene.fleet.board_id}
    job_id = scene.ask("adopt_gateway", **arguments)
    calls = len(scene.simulator.calls)
    scene.serve()
    assert len(scene.simulator.calls) == calls
    assert scene.job(job_id).status == "running"
    for slot in taken:
        for message in slots.release(gateway_id, slot):
            scene.send(message.task, message.kwargs, message.task_id)
    scene.serve_until_ended(job_id)
    assert scene.job(job_id).status == "succeeded"
