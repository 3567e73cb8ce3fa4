"""Settings of agents' roster entries, from our rows to what the gateway holds (rules.md 46)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.integration.sync.scene import Scene, on, on_one_release
from worker.jobs.requests import SyncHeartbeats
from worker.jobs.store.jobs import enqueue
from worker.lab.simulator import Fault, Simulator
from worker.lab.simulator.faults import FakeReply, Refuse
from worker.records.agent_settings import Scope, set_settings, unset_settings
from worker.roster import settings_check, writer
from worker.roster.writer import write_roster
from worker.sync.heartbeat_job import execute_heartbeats

STUB = {
    "stub": {
        "baseUrl": "http://127.0.0.1:9/v1",
        "api": "openai-completions",
        "models": [{"id": "m", "name": "m"}, {"id": "other", "name": "other"}],
    }
}


def config(scene: Scene) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(scene.simulator.config_path.read_text())
    return loaded


def edit(scene: Scene, change: Callable[[dict[str, Any]], None]) -> None:
    """The gateway's owner edits openclaw.json."""
    document = config(scene)
    change(document)
    scene.save("openclaw.json", document)


def with_models(scene: Scene) -> None:
    edit(scene, lambda document: document.update({"models": {"providers": STUB}}))


def entry(scene: Scene, agent_id: UUID | str) -> dict[str, Any]:
    """The agent's entry in openclaw.json; it goes by the id that it has as a member."""
    key = agent_id if isinstance(agent_id, str) else f"mc-{agent_id}"
    agents = config(scene)["agents"]
    if "entries" in agents:
        found: dict[str, Any] = agents["entries"][key]
        return found
    return next(each for each in agents["list"] if each["id"] == key)


def edit_entry(scene: Scene, agent_id: UUID, change: Callable[[dict[str, Any]], None]) -> None:
    def in_document(document: dict[str, Any]) -> None:
        agents = document["agents"]
        entries = agents.get("entries") or {each["id"]: each for each in agents["list"]}
        change(entries[f"mc-{agent_id}"])

    edit(scene, in_document)


def put(scene: Scene, scope: Scope, target: UUID, *, locked: bool = False, **settings: Any) -> None:
    """Set fields; ``__`` stands for the dot in their names."""
    named = {name.replace("__", "."): value for name, value in settings.items()}
    with scene.engine.begin() as connection:
        set_settings(connection, scope, target, named, locked=locked)


def unset(scene: Scene, scope: Scope, target: UUID, field: str) -> None:
    with scene.engine.begin() as connection:
        assert unset_settings(connection, scope, target, field)


def on_record(scene: Scene) -> list[tuple[str, Any, Any]]:
    with scene.engine.connect() as connection:
        rows = connection.execute(
            text("SELECT field, wrote, had FROM provisioner.roster_fields ORDER BY openclaw_id, field")
        )
        return [(row.field, row.wrote, row.had) for row in rows]


def patches(scene: Scene) -> int:
    """How many config patches were carried out."""
    return sum(call.method == "config.patch" and call.ok for call in scene.simulator.calls)


def update(scene: Scene, agent_id: UUID, **options: Any) -> Any:
    job_id = scene.ask("update_agent", agent_id=agent_id, wake=False, **options)
    scene.serve()
    return scene.job(job_id)


@pytest.fixture
def agent(scene: Scene) -> UUID:
    """A provisioned agent on a gateway that has the models stub/m and stub/other."""
    with_models(scene)
    agent_id = scene.agent("Ada")
    scene.provision(agent_id)
    return agent_id


def test_a_model_for_a_board_is_one_patch_and_its_unset_restores_what_was_there(scene: Scene) -> None:
    with_models(scene)
    agents = [scene.agent(f"Ann {n}") for n in range(3)]
    stranger = scene.agent("Bob", board_id=scene.fleet.add_board("Second"))
    scene.provision(*agents, stranger)
    edit_entry(scene, agents[0], lambda each: each.update(model={"primary": "stub/other"}, skills=["a"]))
    before = [entry(scene, each) for each in (*agents, stranger)]
    sent = patches(scene)

    put(scene, "board", scene.fleet.board_id, model="stub/m")
    job = scene.sync(include_main=False)
    assert (job.status, job.result["roster_changes"]) == ("succeeded", 3), job
    assert patches(scene) == sent + 1
    assert [entry(scene, each)["model"] for each in agents] == ["stub/m"] * 3
    assert entry(scene, stranger) == before[3]
    assert entry(scene, agents[0])["skills"] == ["a"]

    unset(scene, "board", scene.fleet.board_id, "model")
    assert scene.sync(include_main=False).status == "succeeded"
    assert [entry(scene, each) for each in (*agents, stranger)] == before
    assert on_record(scene) == []


def test_objects_that_were_made_for_a_field_go_with_it_and_others_stay(scene: Scene, agent: UUID) -> None:
    edit_entry(scene, agent, lambda each: each.update(sandbox={"docker": {}}))
    before = entry(scene, agent)
    put(scene, "agent", agent, tools__profile="minimal", sandbox__docker__image="box")
    assert update(scene, agent).status == "succeeded"
    put(scene, "agent", agent, tools__deny=["exec"])
    assert update(scene, agent).status == "succeeded"
    assert entry(scene, agent)["tools"] == {"profile": "minimal", "deny": ["exec"]}
    unset(scene, "agent", agent, "tools.profile")
    unset(scene, "agent", agent, "sandbox")
    assert update(scene, agent).status == "succeeded"
    assert entry(scene, agent) == {**before, "tools": {"deny": ["exec"]}}
    unset(scene, "agent", agent, "tools.deny")
    assert update(scene, agent).status == "succeeded"
    assert entry(scene, agent) == before
    assert update(scene, agent).result["warnings"] == []
    assert on_record(scene) == []


def test_a_first_provision_has_its_settings_in_the_same_patch(scene: Scene) -> None:
    with_models(scene)
    put(scene, "gateway", scene.fleet.gateway_id, model="stub/m", skills=["a", "b"])
    agent = scene.agent("Ada")
    scene.provision(agent)
    assert (entry(scene, agent)["model"], entry(scene, agent)["skills"]) == ("stub/m", ["a", "b"])
    assert patches(scene) == 1


@on_one_release
def test_the_nearest_wins_field_by_field_unless_a_wider_one_is_locked(scene: Scene, agent: UUID) -> None:
    gateway, board = scene.fleet.gateway_id, scene.fleet.board_id
    put(scene, "gateway", gateway, model="stub/m", tools__profile="full", subagents__allowAgents=["*"])
    put(scene, "board", board, tools__profile="coding", skills=["board"])
    put(scene, "agent", agent, skills=["own"], subagents__allowAgents=[])
    put(scene, "gateway", gateway, locked=True, subagents__allowAgents=["*"])
    assert update(scene, agent).status == "succeeded"
    held = entry(scene, agent)
    assert held["model"] == "stub/m"
    assert held["tools"] == {"profile": "coding"}
    assert held["skills"] == ["own"]
    assert held["subagents"] == {"allowAgents": ["*"]}


def test_an_owners_later_edit_outlives_the_unset(scene: Scene, agent: UUID) -> None:
    put(scene, "agent", agent, model="stub/m", skills=["a", "b"])
    update(scene, agent)
    edit_entry(scene, agent, lambda each: each.update(model="stub/other"))
    unset(scene, "agent", agent, "model")
    unset(scene, "agent", agent, "skills")
    job = update(scene, agent)
    assert job.status == "succeeded"
    assert [w for w in job.warnings if "model was changed in openclaw.json" in w and "stays" in w]
    assert entry(scene, agent)["model"] == "stub/other"
    assert "skills" not in entry(scene, agent)
    assert on_record(scene) == []
    assert update(scene, agent).warnings in (None, [])


def test_an_edit_that_a_setting_overwrites_is_said_and_comes_back_with_the_unset(
    scene: Scene, agent: UUID
) -> None:
    put(scene, "agent", agent, model="stub/m")
    update(scene, agent)
    edit_entry(scene, agent, lambda each: each.update(model="stub/other"))
    job = update(scene, agent)
    assert [w for w in job.warnings if "model was changed in openclaw.json" in w and "set again" in w]
    assert entry(scene, agent)["model"] == "stub/m"
    unset(scene, "agent", agent, "model")
    assert update(scene, agent).warnings in (None, [])
    assert entry(scene, agent)["model"] == "stub/other"


def test_a_change_of_a_setting_keeps_what_the_owner_had(scene: Scene, agent: UUID) -> None:
    edit_entry(scene, agent, lambda each: each.update(skills=["owners"]))
    for value in (["a", "b"], ["c"]):
        put(scene, "agent", agent, skills=value)
        assert update(scene, agent).status == "succeeded"
        assert entry(scene, agent)["skills"] == value
    unset(scene, "agent", agent, "skills")
    update(scene, agent)
    assert entry(scene, agent)["skills"] == ["owners"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"skils": ["a"]}, "knows no setting skils of an agent (it knows skills)"),
        ({"tools__nosuch": 1}, "knows no setting tools.nosuch of an agent (it knows "),
        ({"skills": "a"}, "The setting skills must be a list of texts"),
        ({"sandbox__mode": "sometimes"}, 'The setting sandbox.mode must be "off", "non-main" or "all"'),
        ({"model": "stub/nothing"}, 'The gateway has no model "stub/nothing", which the setting model names'),
        ({"model__fallbacks": ["stub/m", "nope/x"]}, 'no model "nope/x", which the setting model.fallbacks'),
        ({"name": "Eve"}, "An agent's name is not a setting: it comes from agents.name."),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_the_gateway_cannot_take_fails_that_agent_alone_before_the_patch(
    scene: Scene, fields: dict[str, Any], says: str, dry_run: bool
) -> None:
    with_models(scene)
    good, bad = scene.agent("Good"), scene.agent("Bad")
    scene.provision(good, bad)
    before = entry(scene, bad)
    put(scene, "agent", bad, **fields)
    put(scene, "board", scene.fleet.board_id, subagents__thinking="low")
    rejected = [call for call in scene.simulator.calls if call.method == "config.patch" and not call.ok]
    job_id = scene.ask("sync_gateway", gateway_id=scene.fleet.gateway_id, include_main=False, dry_run=dry_run)
    scene.serve()
    rows = scene.rows(job_id)
    assert rows["Bad"].status == "failed"
    assert says in rows["Bad"].reason
    assert rows["Bad"].reason.startswith("Agent 'Bad': ")
    assert rows["Good"].status == "succeeded"
    assert entry(scene, bad) == before
    assert ("subagents" in entry(scene, good)) is not dry_run
    assert rejected == [
        call for call in scene.simulator.calls if call.method == "config.patch" and not call.ok
    ]
    job = update(scene, bad, dry_run=dry_run)
    assert job.status == "failed"
    assert says in job.error


def test_a_setting_that_only_the_patch_can_tell_wrong_is_named(scene: Scene, agent: UUID) -> None:
    """A release that hands out no schema: its refusal of the patch names the agent, and we the setting."""
    put(scene, "agent", agent, skills="a", tools__profile="minimal")
    for method in ("config.schema", "config.schema.lookup"):
        refuse = Refuse(f"unknown method: {method}", code="INVALID_REQUEST")
        scene.simulator.faults.schedule(Fault(refuse, method, times=None))
    job = update(scene, agent)
    assert job.status == "failed"
    assert "correct its settings (skills)" in job.error


def test_a_secret_of_the_owner_is_not_written_over(scene: Scene, agent: UUID) -> None:
    secret = "sk-owners-0123456789abcdef"
    edit_entry(scene, agent, lambda each: each.update(sandbox={"docker": {"env": {"API_KEY": secret}}}))
    put(scene, "agent", agent, sandbox__docker__env={})
    job = update(scene, agent)
    assert job.status == "failed"
    assert "sandbox.docker.env holds a secret in openclaw.json" in job.error
    assert entry(scene, agent)["sandbox"] == {"docker": {"env": {"API_KEY": secret}}}
    assert on_record(scene) == []


@on_one_release
def test_a_setting_that_looks_like_a_secret_is_refused_without_its_value(scene: Scene, agent: UUID) -> None:
    secret = "sk-0123456789abcdef0123"
    put(scene, "agent", agent, sandbox__docker__env__LOGIN=secret)
    job = update(scene, agent)
    assert job.status == "failed"
    assert "The setting sandbox.docker.env.LOGIN looks like a secret" in job.error
    assert secret not in job.error


@on("2026.9.6", "2026.3.13")
def test_text_that_looks_like_a_variable_stays_text(scene: Scene, agent: UUID) -> None:
    put(scene, "agent", agent, identity__theme="${HOME}")
    assert update(scene, agent).status == "succeeded"
    assert entry(scene, agent)["identity"]["theme"] == "$${HOME}"
    assert update(scene, agent).result["warnings"] == []


@on("2026.2.12")
def test_a_release_that_writes_variables_out_gets_none(scene: Scene, agent: UUID) -> None:
    put(scene, "agent", agent, identity__theme="${HOME}")
    job = update(scene, agent)
    assert job.status == "failed"
    assert "agent_settings holds ${HOME}" in job.error


@on("2026.3.13")
def test_a_release_that_merges_lists_loses_what_is_unset(scene: Scene, agent: UUID) -> None:
    before = entry(scene, agent)
    put(scene, "agent", agent, skills=["a", "b"], tools__deny=["x", "y"])
    assert update(scene, agent).status == "succeeded"
    put(scene, "agent", agent, skills=["a"])
    scene.execute("UPDATE provisioner.gateway_states SET rate_limited_until = NULL")
    assert update(scene, agent).status == "succeeded"
    assert entry(scene, agent)["skills"] == ["a"]
    unset(scene, "agent", agent, "skills")
    unset(scene, "agent", agent, "tools")
    scene.execute("UPDATE provisioner.gateway_states SET rate_limited_until = NULL")
    update(scene, agent)
    assert entry(scene, agent) == before


def test_a_dry_run_shows_the_change_and_makes_none(scene: Scene, agent: UUID) -> None:
    put(scene, "agent", agent, model="stub/m")
    sent = patches(scene)
    changes = {"model": "stub/m"}
    assert update(scene, agent, dry_run=True, diff=True).result["roster"]["changes"] == changes
    job_id = scene.ask(
        "sync_gateway", gateway_id=scene.fleet.gateway_id, include_main=False, dry_run=True, diff=True
    )
    scene.serve()
    assert scene.rows(job_id)["Ada"].roster["changes"] == changes
    assert patches(scene) == sent
    assert on_record(scene) == []


def test_a_lost_answer_does_not_lose_what_the_owner_had(
    scene: Scene, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patch is carried out and nobody hears of it: what was there before is on record already."""
    edit_entry(scene, agent, lambda each: each.update(skills=["owners"]))
    put(scene, "agent", agent, skills=["ours"])
    real = writer._patch

    def dies(*arguments: Any) -> Any:
        real(*arguments)
        raise RuntimeError("the worker dies here")

    monkeypatch.setattr(writer, "_patch", dies)
    assert update(scene, agent).status == "failed"
    monkeypatch.undo()
    assert entry(scene, agent)["skills"] == ["ours"]
    assert update(scene, agent).status == "succeeded"
    unset(scene, "agent", agent, "skills")
    update(scene, agent)
    assert entry(scene, agent)["skills"] == ["owners"]


@on_one_release
def test_a_heartbeats_job_writes_settings_too(scene: Scene, agent: UUID) -> None:
    put(scene, "agent", agent, skills=["a"])
    with scene.engine.begin() as connection:
        request = SyncHeartbeats(gateway_id=scene.fleet.gateway_id)
        job_id = enqueue(connection, request, published=True).job_id
    scene.begin_heartbeats(job_id)
    write_roster(scene.services, scene.fleet.gateway_id)
    execute_heartbeats(scene.services, job_id)
    assert scene.job(job_id).status == "succeeded"
    assert entry(scene, agent)["skills"] == ["a"]


@on_one_release
def test_a_deleted_agent_leaves_no_setting_and_no_record(scene: Scene, agent: UUID) -> None:
    other = scene.agent("Bob")
    scene.provision(other)
    put(scene, "agent", agent, skills=["a"])
    put(scene, "agent", other, skills=["b"])
    update(scene, agent)
    update(scene, other)
    scene.ask("delete_agent", agent_id=agent)
    scene.serve()
    assert scene.row("SELECT count(*) AS n FROM provisioner.agent_settings").n == 1
    assert on_record(scene) == [("skills", [["b"]], None)]


@on_one_release
def test_a_kept_row_keeps_its_settings_which_come_back_with_the_agent(scene: Scene, agent: UUID) -> None:
    put(scene, "agent", agent, skills=["a"])
    update(scene, agent)
    scene.ask("delete_agent", agent_id=agent, delete_row=False)
    scene.serve()
    assert on_record(scene) == []
    scene.provision(agent)
    assert entry(scene, agent)["skills"] == ["a"]
    assert on_record(scene) == [("skills", [["a"]], None)]


def test_an_entry_that_somebody_else_removed_has_nothing_to_restore(scene: Scene, agent: UUID) -> None:
    edit_entry(scene, agent, lambda each: each.update(skills=["owners"]))
    put(scene, "agent", agent, skills=["ours"])
    update(scene, agent)

    def remove(document: dict[str, Any]) -> None:
        agents = document["agents"]
        if "entries" in agents:
            del agents["entries"][f"mc-{agent}"]
        else:
            agents["list"] = [each for each in agents["list"] if each["id"] != f"mc-{agent}"]

    edit(scene, remove)
    scene.provision(agent)
    unset(scene, "agent", agent, "skills")
    update(scene, agent)
    assert "skills" not in entry(scene, agent)
    assert on_record(scene) == []


def test_a_sync_with_nothing_to_do_costs_no_more_with_settings(scene: Scene) -> None:
    with_models(scene)
    agents = [scene.agent(f"Ann {n}") for n in range(3)]
    scene.provision(*agents)
    scene.sync(include_main=False)
    with scene.counting() as without:
        assert scene.sync(include_main=False).result["agents_unchanged"] == 3
    put(scene, "board", scene.fleet.board_id, model="stub/m", tools__deny=["exec"])
    scene.sync(include_main=False)
    with scene.counting() as using:
        assert scene.sync(include_main=False).result["agents_unchanged"] == 3
    assert using.calls == without.calls
    assert using.statements == without.statements
    assert using.messages == without.messages


@on_one_release
def test_rows_that_cannot_be_read_fail_their_agent_alone(scene: Scene, agent: UUID) -> None:
    other = scene.agent("Bob")
    scene.provision(other)
    deep = "[" * 3000 + "]" * 3000
    scene.execute(
        "INSERT INTO provisioner.agent_settings (scope, target_id, field, value)"
        " VALUES ('agent', :id, 'skills', CAST(:value AS jsonb))",
        id=agent,
        value=deep,
    )
    put(scene, "board", scene.fleet.board_id, skills=["a"])
    job_id = scene.ask("sync_gateway", gateway_id=scene.fleet.gateway_id, include_main=False)
    scene.serve()
    rows = scene.rows(job_id)
    assert rows["Ada"].status == "failed"
    assert "agent_settings" in rows["Ada"].reason
    assert rows["Bob"].status == "succeeded"
    assert entry(scene, other)["skills"] == ["a"]


@on_one_release
def test_settings_follow_an_agent_to_another_gateway_and_leave_no_record_behind(
    scene: Scene, agent: UUID, tmp_path: Path
) -> None:
    put(scene, "agent", agent, skills=["own"])
    put(scene, "gateway", scene.fleet.gateway_id, model="stub/m")
    update(scene, agent)
    assert [field for field, _, _ in on_record(scene)] == ["model", "skills"]
    release = scene.simulator.release.name
    with Simulator(release, token="other-token", state_dir=tmp_path / "other") as other:
        there = scene.fleet.add_gateway("other", other.url, "other-token", str(tmp_path / "ws"))
        scene.execute("UPDATE boards SET gateway_id = :there", there=there)
        scene.execute("UPDATE agents SET gateway_id = :there WHERE id = :id", there=there, id=agent)
        scene.provision(agent)
        agents = json.loads(other.config_path.read_text())["agents"]
    entries = agents.get("entries") or {each["id"]: each for each in agents["list"]}
    moved = entries[f"mc-{agent}"]
    assert (moved["skills"], "model" in moved) == (["own"], False)
    assert on_record(scene) == [("skills", [["own"]], None)]


@on_one_release
def test_an_entry_that_is_handed_on_is_restored_for_its_next_agent(scene: Scene) -> None:
    """A lead's id is its board's: what the owner has there outlives the lead for whom we wrote over it."""
    first = scene.agent("First", lead=True)
    scene.provision(first)
    lead = f"lead-{scene.fleet.board_id}"

    def owners(document: dict[str, Any]) -> None:
        agents = document["agents"]
        entries = agents.get("entries") or {each["id"]: each for each in agents["list"]}
        entries[lead]["skills"] = ["owners"]

    edit(scene, owners)
    put(scene, "board", scene.fleet.board_id, skills=["ours"])
    update(scene, first)
    assert entry(scene, lead)["skills"] == ["ours"]
    scene.execute("DELETE FROM agents WHERE id = :id", id=first)
    second = scene.agent("Second", lead=True)
    scene.provision(second)
    unset(scene, "board", scene.fleet.board_id, "skills")
    assert update(scene, second).status == "succeeded"
    assert entry(scene, lead)["skills"] == ["owners"]
    assert on_record(scene) == []


@on_one_release
def test_an_agent_that_becomes_a_lead_takes_its_settings_along(scene: Scene, agent: UUID) -> None:
    put(scene, "agent", agent, skills=["own"])
    update(scene, agent)
    scene.execute("UPDATE agents SET is_board_lead = true WHERE id = :id", id=agent)
    scene.provision(agent)
    assert entry(scene, f"lead-{scene.fleet.board_id}")["skills"] == ["own"]
    assert on_record(scene) == [("skills", [["own"]], None)]


@on_one_release
def test_what_a_gateway_says_of_settings_is_bounded_and_stops_nobody(
    scene: Scene, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = scene.agent("Bob")
    scene.provision(other)
    put(scene, "gateway", scene.fleet.gateway_id, skills=["a"])
    put(scene, "agent", agent, model="".join(chr(200 + n % 20_000) for n in range(60_000)))
    named = "".join(chr(200 + n % 20_000) for n in range(60_001))
    listed = FakeReply({"models": [{"id": named, "provider": "x"}, {"id": ["odd"], "provider": {}}]})
    scene.simulator.faults.replace([Fault(listed, "models.list")])
    rows = scene.rows(scene.sync(include_main=False).id)
    assert (rows["Ada"].status, rows["Bob"].status) == ("failed", "succeeded")
    assert len(rows["Ada"].reason) < 1500

    unset(scene, "agent", agent, "model")
    with scene.engine.begin() as connection:
        many = {f"tools.nosuch{number}": 1 for number in range(2000)}
        set_settings(connection, "agent", agent, many, locked=False)
    assert "knows no setting tools.nosuch0" in scene.rows(scene.sync(include_main=False).id)["Ada"].reason
    assert sum(call.method == "config.schema.lookup" for call in scene.simulator.calls) < 250

    unset(scene, "agent", agent, "tools")
    put(scene, "gateway", scene.fleet.gateway_id, skills=["b"])

    def accepts(*_: Any) -> bool:
        raise KeyError("x")

    monkeypatch.setattr(settings_check, "accepts", accepts)
    rows = scene.rows(scene.sync(include_main=False).id)
    assert {row.status for row in rows.values()} == {"succeeded"}, rows["Bob"].reason
    assert entry(scene, other)["skills"] == ["b"]
