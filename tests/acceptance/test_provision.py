"""What a provision leaves on a gateway and in Postgres, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.owner import OWNERS_VARIABLES, written_out
from tests.acceptance.world import World
from tests.gateways.stub_model import ModelRequest
from tests.releases import ON_DEMAND
from worker.gateway.dialect import Dialect
from worker.gateway.protocol import Event
from worker.workspace.context import AgentFacts, BoardFacts, GatewayFacts, UserFacts
from worker.workspace.rendering import Layout, RenderedWorkspace, render_workspace
from worker.workspace.tokens import PLACEHOLDER, find_token, verify_token

pytestmark = pytest.mark.releases(*ON_DEMAND)

HIDDEN_AFTER_SETUP = "BOOTSTRAP.md"


@pytest.fixture(scope="module")
def provisioned(world: World) -> Mapping[str, Any]:
    """A lead and members, all asked for in the same moment; and how the owner's keys were before."""
    batch = world.batch
    return {
        "agents": batch.awake,
        "rows": batch.jobs,
        "before": batch.config_before,
        "calls": batch.calls,
    }


def test_many_at_once_are_all_in_the_roster_after_few_patches(
    world: World, provisioned: Mapping[str, Any]
) -> None:
    roster = world.roster()
    for agent_id, job in zip(provisioned["agents"], provisioned["rows"], strict=True):
        openclaw_id = job["result"]["openclaw_id"]
        entry = roster[openclaw_id]
        assert entry["workspace"] == job["result"]["workspace_path"]
        assert entry["name"] == world.agent(agent_id)["name"]
        assert entry["heartbeat"]["target"] == "none"
    assert roster[provisioned["rows"][0]["result"]["openclaw_id"]]["heartbeat"]["every"] == "10m"
    assert roster[provisioned["rows"][1]["result"]["openclaw_id"]]["heartbeat"]["every"] == "15m"
    patches = sum(method == "config.patch" for method, _ in provisioned["calls"])
    assert 1 <= patches <= 3
    wakes = [params for method, params in provisioned["calls"] if method == "chat.send"]
    assert len(wakes) == len({wake["sessionKey"] for wake in wakes}) == len(provisioned["agents"])
    assert not any(
        method in ("agents.create", "agents.update", "sessions.reset") for method, _ in provisioned["calls"]
    )


def test_what_the_owner_had_is_untouched(world: World, provisioned: Mapping[str, Any]) -> None:
    before, after = provisioned["before"], world.config()
    if world.release == "2026.2.12":  # it writes variables out: test_owner
        variables = {**OWNERS_VARIABLES, "GATEWAY_TOKEN": world.gateway_token}
        before, after = written_out(before, variables), written_out(after, variables)
    assert _roster(after)["owners-bot"] == _roster(before)["owners-bot"]
    assert after["gateway"] == before["gateway"]
    assert after.get("models") == before.get("models")
    for key, value in before["agents"].items():
        if key == "defaults":
            # 2026.3.13 writes defaults of its own beside the owner's at any change of the config.
            assert {name: after["agents"][key][name] for name in value} == value
        elif key not in ("list", "entries"):
            assert after["agents"][key] == value


def test_every_deliverable_file_equals_its_rendering(world: World, provisioned: Mapping[str, Any]) -> None:
    for agent_id, job in list(zip(provisioned["agents"], provisioned["rows"], strict=True))[:3]:
        files = world.files(job["result"]["openclaw_id"])
        rendered = _rendering(world, agent_id, files.dialect)
        hash_ = world.agent(agent_id)["agent_token_hash"]
        names = [name for name, file in rendered.items() if file.kind == "file"]
        live = world.wait_for_answer(partial(files.read, names))
        if files.dialect.drops_bootstrap:
            # The gateway deletes it at the first run; the wake message carries it.
            live.pop(HIDDEN_AFTER_SETUP, None)
            names.remove(HIDDEN_AFTER_SETUP)
        assert sorted(live) == sorted(names)
        for name in names:
            content = live[name].content
            assert content is not None
            if rendered[name].carries_token:
                token = find_token(content, section=name == "AGENTS.md")
                assert token is not None
                assert verify_token(token, hash_)
                assert content.count(token) == 1
                content = content.replace(token, PLACEHOLDER)
            assert content == rendered[name].text
        for file in rendered.values():
            if file.kind == "scratch":
                scratch = files.read_scratch(files.scratch_id())
                assert scratch is not None
                assert scratch.content == file.text
        files.client.close()


def test_the_rows_of_mission_control_say_so(world: World, provisioned: Mapping[str, Any]) -> None:
    for agent_id, job in zip(provisioned["agents"], provisioned["rows"], strict=True):
        agent = world.agent(agent_id)
        assert agent["status"] == "online"
        assert agent["openclaw_session_id"] == job["result"]["session_key"]
        assert (agent["provision_requested_at"], agent["provision_action"]) == (None, None)
        row = world.row(job["id"])
        assert (row["status"], row["phase"], row["attempts"]) == ("succeeded", "ended", 0)
        assert row["woken_at"] is not None
        assert job["result"]["woken"] is True
        assert job["result"]["token"] == "minted"


def test_provisioned_again_nothing_is_written(world: World, provisioned: Mapping[str, Any]) -> None:
    agent_id, first = provisioned["agents"][1], provisioned["rows"][1]
    config_before = world.config_path.read_bytes()
    files = world.files(first["result"]["openclaw_id"])
    live_before = world.wait_for_answer(files.live)
    hash_before = world.agent(agent_id)["agent_token_hash"]
    world.proxy.forget()
    [job] = world.provision(agent_id)
    assert world.proxy.count("config.patch", "agents.files.set", "cron.scratch.set") == 0
    assert world.proxy.count("agents.files.get") == 0
    assert world.config_path.read_bytes() == config_before
    assert world.wait_for_answer(files.live) == live_before
    files.client.close()
    assert world.agent(agent_id)["agent_token_hash"] == hash_before
    assert job["result"]["token"] == "reused"
    assert world.proxy.count("chat.send") == 1
    assert world.proxy.count("sessions.reset") == 1


def test_an_edit_of_the_agents_is_kept_and_a_lost_file_comes_back(
    world: World, provisioned: Mapping[str, Any]
) -> None:
    agent_id, first = provisioned["agents"][2], provisioned["rows"][2]
    files = world.files(first["result"]["openclaw_id"])
    edits = {"MEMORY.md": "What I learned.\n", "SOUL.md": "Not me."}
    world.wait_for_answer(lambda: files.write(edits, lambda name, written: None))
    files.client.close()
    [job] = world.provision(agent_id, wake=False)
    files = world.files(first["result"]["openclaw_id"])
    live = world.wait_for_answer(lambda: files.read(["MEMORY.md", "SOUL.md"]))
    files.client.close()
    assert live["MEMORY.md"].content == "What I learned.\n"
    assert live["SOUL.md"].content == "Not me."
    actions = {name: report["action"] for name, report in job["result"]["files"].items()}
    assert (actions["MEMORY.md"], actions["SOUL.md"]) == ("preserved", "preserved")
    assert actions["USER.md"] == "preserved"


@pytest.mark.model
def test_the_wake_reaches_the_model_with_all_that_the_agent_needs(
    world: World, provisioned: Mapping[str, Any]
) -> None:
    assert world.model is not None
    job = provisioned["rows"][5]
    name = world.agent(provisioned["agents"][5])["name"]
    wake = world.model.wait_for(lambda asked: f"Hello {name}." in asked.text, world.timeout_s)
    token = world.token(job["result"]["openclaw_id"])
    assert token is not None
    assert f"AUTH_TOKEN={token}" in wake.text
    assert f"You are {name}, a member of the board" in wake.text
    assert "Your workspace was just provisioned" in wake.text
    if world.release >= "2026.8":  # it has no BOOTSTRAP.md left to read
        assert "# First start" in wake.text


def _roster(config: Mapping[str, Any]) -> dict[str, Any]:
    agents = config["agents"]
    entries: dict[str, Any] = agents.get("entries") or {entry["id"]: entry for entry in agents["list"]}
    return entries


def _rendering(world: World, agent_id: UUID, dialect: Dialect) -> RenderedWorkspace:
    agent = world.agent(agent_id)
    return render_workspace(
        AgentFacts(agent_id, agent["name"], agent["is_board_lead"]),
        BoardFacts(world.fleet.board_id, "Launch", "goal", "Ship it.", goal_confirmed=True),
        GatewayFacts(world.fleet.gateway_id, "workshop", world.proxy.url, str(world.folder / "agents")),
        UserFacts("Ada Lovelace", "Ada", timezone="Europe/London"),
        "http://127.0.0.1:8000",
        Layout(dialect.files, dialect.credentials_in, dialect.heartbeat_in),
    )


@pytest.mark.model
def test_the_woken_run_ends_final(world: World) -> None:
    finals: list[str] = []
    client = world.direct()

    def note(event: Event) -> None:
        if event.name == "chat" and event.payload.get("state") == "final":
            finals.append(str(event.payload.get("runId")))

    client.connection().subscribe(note)
    [job] = world.provision(world.take().agent_id)
    key = world.row(job["id"])["wake_key"]
    world.eventually(lambda: key in finals, f"no final for {key}, only {finals}")
    client.close()


@pytest.mark.model(since="2026.8")
def test_a_heartbeat_run_holds_the_heartbeat_text(world: World, provisioned: Mapping[str, Any]) -> None:
    model = world.model
    assert model is not None
    job = provisioned["rows"][6]
    files = world.files(job["result"]["openclaw_id"])
    scratch_id = world.wait_for_answer(files.scratch_id)
    scratch = world.wait_for_answer(lambda: files.read_scratch(scratch_id))
    assert scratch is not None
    first_line = (scratch.content or "").splitlines()[0]

    def holds_it(asked: ModelRequest) -> bool:
        return first_line in asked.text and job["result"]["openclaw_id"] in asked.text

    def beat() -> bool:
        """A heartbeat is skipped while its agent is at work: on what it was woken for, say."""
        files.client.call("cron.run", {"jobId": scratch_id, "mode": "force"}, deadline_s=60)
        with suppress(TimeoutError):
            return model.wait_for(holds_it, 10.0) is not None
        return False

    world.eventually(beat, "no heartbeat run held the agent's heartbeat text")
    files.client.close()
