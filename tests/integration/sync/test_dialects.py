"""What one release does and another does not, from the request to what the gateway holds afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.integration.agents.fleet import execute
from tests.integration.sync.scene import Scene, make_scene, on
from worker.cli.doctor import roster as doctor_roster
from worker.cli.doctor.report import Finding
from worker.gateway.address import GatewayAddress
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey
from worker.gateway.dialect import Dialect
from worker.gateway.errors import GatewayError
from worker.gateway.roster_reading import LiveRoster
from worker.lab.simulator import Fault, Simulator
from worker.lab.simulator.faults import Refuse
from worker.records.agent_repository import load_agent

VARIABLES = {"BUDGET_OWNER": "a secret of the gateway's host"}


@pytest.fixture
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Simulator]:
    release = getattr(request, "param", "2026.9.6")
    with Simulator(
        release, token="gateway-token", state_dir=tmp_path / "gateway", environment=VARIABLES, reply="OK"
    ) as running:
        yield running


@pytest.fixture
def scene(simulator: Simulator, engine: Engine, hands: Callable[..., Any]) -> Scene:
    return make_scene(simulator, engine, hands(retry_inline_s=5))


def calls(scene: Scene, method: str) -> list[Any]:
    return [call for call in scene.simulator.calls if call.method == method and call.ok]


def address(scene: Scene) -> GatewayAddress:
    return GatewayAddress(scene.simulator.url, scene.simulator.token)


def first_message(scene: Scene, key: str) -> str:
    """The first message of a session, which its history shows some time after it was sent."""
    client, deadline = scene.services.clients.client(address(scene)), time.monotonic() + 5
    while time.monotonic() < deadline:
        for said in client.call("chat.history", {"sessionKey": key})["messages"]:
            if said["role"] == "user":
                return str(said["content"])
        time.sleep(0.02)
    raise AssertionError(f"no message in {key}")


def set_heartbeat(scene: Scene, agent: UUID, config: Any) -> None:
    execute(
        scene.engine,
        "UPDATE agents SET heartbeat_config = CAST(:config AS json) WHERE id = :id",
        id=agent,
        config=json.dumps(config),
    )


@on("2026.2.26")
def test_a_release_that_calls_itself_dev_and_keeps_files_per_session_gets_a_new_session_for_a_new_token(
    scene: Scene,
) -> None:
    scene.provision(scene.agent("Ada"), scene.main())
    before = len(calls(scene, "sessions.reset"))
    job = scene.sync(rotate_tokens=True)
    assert job.status == "succeeded"
    assert len(calls(scene, "sessions.reset")) == before + 2
    assert "session was reset" in str(job.warnings)


@on("2026.2.26")
def test_removals_undo_neither_each_other_nor_what_the_owner_saved_a_moment_ago(scene: Scene) -> None:
    """Its agents.delete writes the config as it was loaded last, half a second ago."""
    agents = [scene.agent(name) for name in ("Ada", "Bob", "Cem", "Dia")]
    scene.provision(*agents)
    stored = json.loads(scene.simulator.config_path.read_text())
    stored["agents"]["list"].append({"id": "owners-bot", "name": "Bot"})
    scene.simulator.config_path.write_text(json.dumps(stored))
    jobs = [scene.ask("delete_agent", agent_id=agent) for agent in agents[1:]]
    scene.serve()
    assert [scene.job(job).error for job in jobs] == [None] * 3
    listed = json.loads(scene.simulator.config_path.read_text())["agents"]["list"]
    assert [entry["id"] for entry in listed if entry["id"] != "main"] == [f"mc-{agents[0]}", "owners-bot"]


@on("2026.2.12")
def test_a_session_is_deleted_once_its_agent_is_off_the_roster(scene: Scene) -> None:
    """A removal may be refused, and then the agent keeps its session."""
    agent = scene.agent("Ada")
    scene.provision(agent)
    job_id = scene.ask("delete_agent", agent_id=agent)
    while f"mc-{agent}" in scene.simulator.agents():
        assert not calls(scene, "sessions.delete")
        scene.one()
    scene.serve()
    assert scene.job(job_id).status == "succeeded", scene.job(job_id).error
    assert [call.names["key"] for call in calls(scene, "sessions.delete")] == [f"agent:mc-{agent}:main"]


@on("2026.2.26", "2026.2.12", "2026.9.6")
def test_a_key_that_leaves_heartbeat_config_leaves_the_gateway_with_one_patch(scene: Scene) -> None:
    agent = scene.agent(
        "Ada", heartbeat_config={"prompt": "go on", "activeHours": {"start": "08:00", "end": "20:00"}}
    )
    scene.provision(agent)
    set_heartbeat(scene, agent, {"activeHours": {"start": "08:00"}})
    before = len(calls(scene, "config.patch"))
    job_id = scene.ask("update_agent", agent_id=agent, wake=False)
    scene.serve()
    assert scene.job(job_id).status == "succeeded", scene.job(job_id).error
    entry = scene.simulator.agents()[f"mc-{agent}"]["heartbeat"]
    assert "prompt" not in entry
    assert entry["activeHours"] == {"start": "08:00"}
    assert len(calls(scene, "config.patch")) == before + 1


@on("2026.2.26", "2026.3.13", "2026.9.6")
def test_a_name_that_looks_like_a_variable_is_text_on_the_gateway(scene: Scene) -> None:
    agent = scene.agent("Bill ${BUDGET_OWNER}", heartbeat_config={"prompt": "${UNSET} $${BUDGET_OWNER}"})
    scene.provision(agent, scene.main())
    client = scene.services.clients.client(address(scene))
    config = client.call("config.get")["config"]["agents"]
    entries = config.get("entries") or {entry["id"]: entry for entry in config["list"]}
    assert entries[f"mc-{agent}"]["name"] == "Bill ${BUDGET_OWNER}"
    assert entries[f"mc-{agent}"]["heartbeat"]["prompt"] == "${UNSET} $${BUDGET_OWNER}"
    before = len(calls(scene, "config.patch"))
    assert scene.sync().result["agents_unchanged"] == 1
    assert len(calls(scene, "config.patch")) == before


@on("2026.2.12")
def test_a_release_that_writes_variables_out_is_never_given_text_that_looks_like_one(scene: Scene) -> None:
    bill, ada = scene.agent("Bill ${NOT_SET}"), scene.agent("Ada")
    job_id = scene.ask("provision_agent", agent_id=bill, wake=False)
    scene.serve()
    assert scene.job(job_id).status == "failed"
    assert "${NOT_SET}" in scene.job(job_id).error
    scene.provision(ada)
    assert "NOT_SET" not in scene.simulator.config_path.read_text(encoding="utf-8")


@on("2026.2.12", "2026.9.6")
def test_a_workspace_root_with_a_variable_is_refused_before_anything_is_written(scene: Scene) -> None:
    agent = scene.agent("Ada")
    execute(scene.engine, "UPDATE gateways SET workspace_root = '${HOME}/agents'")
    job_id = scene.ask("provision_agent", agent_id=agent, wake=False)
    scene.serve()
    assert scene.job(job_id).status == "failed"
    assert "workspace_root" in scene.job(job_id).error
    assert not calls(scene, "config.patch")


@on("2026.2.12", "2026.9.6")
def test_one_agent_with_settings_that_a_config_would_obey_keeps_nobody_else_waiting(scene: Scene) -> None:
    bad, good = scene.agent("Bad", heartbeat_config={"$include": "/etc/passwd"}), scene.agent("Good")
    refused = scene.ask("provision_agent", agent_id=bad, wake=False)
    scene.provision(good)
    assert "$include" in scene.job(refused).error
    assert "$include" not in scene.simulator.config_path.read_text(encoding="utf-8")


@on("2026.2.12", "2026.9.6")
def test_a_name_with_line_breaks_and_of_a_megabyte_reaches_roster_label_and_message_on_one_short_line(
    scene: Scene,
) -> None:
    forged = scene.agent("Bill\nAUTH_TOKEN=forged\u202e")
    endless = scene.agent("x" * 1_000_000)
    jobs = [scene.ask("provision_agent", agent_id=agent) for agent in (forged, endless)]
    scene.serve()
    assert [scene.job(job).status for job in jobs] == ["succeeded", "succeeded"]
    names = {key: entry["name"] for key, entry in scene.simulator.agents().items() if "name" in entry}
    assert names[f"mc-{forged}"] == "Bill AUTH_TOKEN=forged"
    assert len(names[f"mc-{endless}"]) <= 200
    client = scene.services.clients.client(address(scene))
    labels = {one["key"]: one["label"] for one in client.call("sessions.list")["sessions"]}
    assert labels[f"agent:mc-{forged}:main"] == "Bill AUTH_TOKEN=forged"
    assert labels[f"agent:mc-{endless}:main"].startswith("xxx")


def test_a_wake_message_holds_no_line_that_a_name_forged(scene: Scene) -> None:
    agent = scene.agent("Bill\nAUTH_TOKEN=forged\n" + "x" * 1_000_000)
    job_id = scene.ask("provision_agent", agent_id=agent)
    scene.serve()
    assert scene.job(job_id).status == "succeeded", scene.job(job_id).error
    message = first_message(scene, f"agent:mc-{agent}:main")
    assert message.startswith("Hello Bill AUTH_TOKEN=forged xxx")
    assert "\nAUTH_TOKEN=" not in message.split("This is BOOTSTRAP.md")[0]
    assert len(message) < 20_000


def beats(scene: Scene, agent: UUID) -> bool:
    """Whether the gateway has a heartbeat automation of the agent, with the text that we gave it."""
    client = scene.services.clients.client(address(scene))
    jobs = client.call("cron.list", {"agentId": f"mc-{agent}", "includeDisabled": True})["jobs"]
    return any(client.call("cron.scratch.get", {"jobId": job["id"]})["scratch"] for job in jobs)


@on("2026.2.12", "2026.3.13", "2026.9.6")
def test_an_agent_whose_owner_wrote_its_id_in_capitals_is_still_the_same_one(scene: Scene) -> None:
    agent, other = scene.agent("Ada"), scene.agent("Bea")
    scene.provision(agent, other)
    written = f"MC-{agent}"
    path = scene.simulator.config_path
    path.write_text(path.read_text("utf-8").replace(f'"mc-{agent}"', f'"{written}"'))
    scene.execute("UPDATE agents SET name = 'Ada the Second' WHERE id = :id", id=agent)
    assert scene.sync(include_main=False).status == "succeeded"
    agents = json.loads(path.read_text())["agents"]
    entries = agents.get("entries") or {entry["id"]: entry for entry in agents["list"]}
    assert set(entries) - {"main"} == {written, f"mc-{other}"}
    assert entries[written]["name"] == "Ada the Second"
    workspace = Path(entries[written]["workspace"])
    deleted = scene.ask("delete_agent", agent_id=agent)
    scene.serve()
    job = scene.job(deleted)
    assert (job.status, job.result["removed"]) == ("succeeded", True), job.error
    assert set(scene.simulator.agents()) - {"main"} == {f"mc-{other}"}
    # 2026.9.6 takes the entry away, fails at its key, and leaves the folder (measured)
    assert (f"delete {workspace} there by hand" in str(job.warnings)) is workspace.exists()
    assert workspace.exists() is (scene.simulator.release.name == "2026.9.6")


def test_an_agent_that_was_deleted_by_us_and_made_again_has_its_heartbeat(scene: Scene) -> None:
    agent, other = scene.agent("Ada"), scene.agent("Bea")
    scene.provision(agent, other)
    deleted = scene.ask("delete_agent", agent_id=agent, delete_row=False)
    scene.serve()
    assert scene.job(deleted).status == "succeeded", scene.job(deleted).error
    scene.provision(agent)
    assert beats(scene, agent)
    assert scene.simulator.restarts == 0
    entry = scene.simulator.agents()[f"mc-{agent}"]
    assert (entry["name"], "identity" in entry) == ("Ada", False)
    assert not any("not delivered" in warning for warning in scene.rows(deleted)["Ada"].warnings)


def test_an_agent_that_somebody_else_deleted_and_we_make_again_has_its_heartbeat(scene: Scene) -> None:
    agent, other = scene.agent("Ada"), scene.agent("Bea")
    scene.provision(agent, other)
    scene.services.clients.client(address(scene)).call("agents.delete", {"agentId": f"mc-{agent}"})
    job_id = scene.ask("provision_agent", agent_id=agent, wake=False)
    scene.serve()
    assert scene.job(job_id).status == "succeeded", scene.job(job_id).error
    assert scene.job(job_id).warnings == []
    assert beats(scene, agent)
    assert beats(scene, other)


def test_an_agent_that_stands_and_cannot_beat_is_named_with_the_cure(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As v0.1.0 left it: deleted, and brought back by a config write alone."""
    monkeypatch.setattr(doctor_roster, "_MAKING_S", 0.2)
    agent, other = scene.agent("Ada"), scene.agent("Bea")
    quiet = scene.agent("Cem", heartbeat_config={"every": "0m"})
    scene.provision(agent, other, quiet)
    client, key = scene.services.clients.client(address(scene)), f"mc-{agent}"
    entry = scene.simulator.agents()[key]
    client.call("agents.delete", {"agentId": key, "deleteFiles": False})
    patch = {"raw": json.dumps({"agents": {"entries": {key: entry}}})}
    with pytest.raises(GatewayError, match="recovery restart"):
        client.call("config.patch", {**patch, "baseHash": client.call("config.get")["hash"]})
    sync = scene.ask("sync_gateway", gateway_id=scene.fleet.gateway_id)
    scene.serve()
    scene.serve_until_ended(sync)  # it may meet the restart
    told = scene.job(sync).warnings
    assert ["keep-row" in warning and warning.startswith("Ada:") for warning in told] == [True]
    assert [finding.about for finding in automations(scene, agent, other, quiet)] == [["Ada"]]
    deleted = scene.ask("delete_agent", agent_id=agent, delete_row=False, delete_files=False)
    scene.serve()
    assert scene.job(deleted).status == "succeeded", scene.job(deleted).error
    scene.provision(agent)
    assert beats(scene, agent)
    assert automations(scene, agent, other, quiet) == []


def automations(scene: Scene, *agents: UUID) -> list[Finding]:
    """What doctor finds of them."""
    with scene.engine.connect() as connection:
        records = [load_agent(connection, agent, None) for agent in agents]
    with GatewayConnection.open(address(scene), DeviceKey.generate(), deadline_s=5) as gateway:
        hello = gateway.hello
        dialect = Dialect.from_hello(hello.server_version, hello.methods)
        live = LiveRoster.of(dialect, gateway.call("config.get", deadline_s=5))
        return list(doctor_roster.check_automations(gateway, live, records, 5))


def owner_sets(scene: Scene, **sections: Any) -> None:
    """What the gateway's owner writes into openclaw.json, with the restart that makes it count."""
    path = scene.simulator.config_path
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **sections}), "utf-8")
    scene.simulator.restart()


@on("2026.2.12", "2026.2.26", "2026.9.6")
def test_where_all_share_the_owners_one_session_it_is_neither_reset_nor_labelled_nor_written_to(
    scene: Scene,
) -> None:
    agent = scene.agent("Ada")
    scene.provision(agent, scene.main())
    owner_sets(scene, session={"scope": "global"})
    other = scene.agent("Bea")
    jobs = [scene.ask("update_agent", agent_id=agent, reset_session=True)]
    jobs += [scene.ask("provision_agent", agent_id=other)]
    scene.serve()
    synced = scene.sync(reset_sessions=True, rotate_tokens=True)
    deleted = scene.ask("delete_agent", agent_id=other)
    scene.serve()
    for job in (*map(scene.job, jobs), synced, scene.job(deleted)):
        assert job.status == "succeeded", job.error
    for job in map(scene.job, jobs):
        assert job.result["woken"] is False
        assert any("session.scope" in warning for warning in job.warnings)
    assert "session.scope" in str(synced.result["warnings"])
    touched = {"sessions.reset", "sessions.patch", "sessions.delete", "chat.send"}
    assert not [call for call in scene.simulator.calls if call.method in touched]


@on("2026.9.6")
def test_a_scope_that_changes_under_a_live_connection_is_heeded(scene: Scene) -> None:
    agent = scene.agent("Ada")
    scene.provision(agent)
    path = scene.simulator.config_path
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "session": {"scope": "global"}}))
    job_id = scene.ask("provision_agent", agent_id=scene.agent("Bea"))
    scene.serve()
    assert scene.job(job_id).status == "succeeded", scene.job(job_id).error
    assert not [call for call in scene.simulator.calls if call.method == "chat.send"]


DENIED = {"default": "deny"}
RULED_OUT = {"rules": [{"action": "deny", "match": {"keyPrefix": "agent:mc-"}}]}


@pytest.mark.parametrize(
    ("policy", "cure"), [(DENIED, '"keyPrefix": "agent:mc-"'), (RULED_OUT, "sendPolicy.rules[0]")]
)
@on("2026.2.12", "2026.9.6")
def test_a_wake_that_the_owners_policy_denies_is_a_warning_with_the_rule_that_would_allow_it(
    scene: Scene, policy: Any, cure: str
) -> None:
    owner_sets(scene, session={"sendPolicy": policy})
    jobs = [scene.ask("provision_agent", agent_id=scene.agent(name)) for name in ("Ada", "Bea")]
    scene.serve()
    for job in map(scene.job, jobs):
        assert (job.status, job.result["woken"]) == ("succeeded", False), job.error
        assert any(cure in warning for warning in job.warnings)


@on("2026.9.6")
def test_where_automations_are_switched_off_every_job_says_that_nobody_beats(scene: Scene) -> None:
    owner_sets(scene, cron={"enabled": False})
    agent = scene.agent("Ada")
    first = scene.ask("provision_agent", agent_id=agent, wake=False)
    scene.serve()
    again = scene.ask("provision_agent", agent_id=agent, wake=False)
    scene.serve()
    for job in (scene.job(first), scene.job(again)):
        assert job.status == "succeeded", job.error
        assert any("cron.enabled" in warning for warning in job.warnings)
    assert "cron.enabled" in str(scene.sync().result["warnings"])


@on("2026.2.12", "2026.9.6")
def test_the_first_block_names_the_default_agent_that_it_silences_and_what_to_write(scene: Scene) -> None:
    agents = scene.agent("Ada"), scene.agent("Bea")
    jobs = [scene.ask("provision_agent", agent_id=agent, wake=False) for agent in agents]
    scene.serve()
    warnings = [warning for job in jobs for warning in scene.job(job).warnings]
    (silencing,) = [warning for warning in warnings if "first heartbeat block" in warning]
    assert "main" in silencing
    assert ("agents.entries.main.heartbeat" in silencing) == scene.simulator.release.roster_is_map


@on("2026.2.12", "2026.2.26", "2026.9.6")
def test_the_default_agent_goes_on_beating_where_the_setting_says_so(
    simulator: Simulator, engine: Engine, hands: Callable[..., Any]
) -> None:
    scene = make_scene(simulator, engine, hands(retry_inline_s=5, keep_default_heartbeat=True))
    agent = scene.agent("Ada")
    scene.provision(agent)
    assert simulator.agents()["main"]["heartbeat"] == {}
    before = len(calls(scene, "config.patch"))
    scene.provision(scene.agent("Bea"))
    assert len(calls(scene, "config.patch")) == before + 1
    assert simulator.agents()["main"]["heartbeat"] == {}


BLOCK = {"heartbeat": {"every": "20m"}}
SPELLED = [
    ("2026.9.6", {"defaults": BLOCK, "entries": {"Ops-Bot": {}, "two": {}}}, {"Ops-Bot", "two"}),
    ("2026.9.6", {"defaults": {"heartbeat": {"agentId": "Ops"}}, "entries": {"ops": {}, "two": {}}}, {"ops"}),
    ("2026.9.6", {"defaults": {"systemAgent": {"agentId": "B"}}, "entries": {"b": {}, "two": {}}}, {"b"}),
    ("2026.2.12", {"list": [{"id": "Ops Bot", "default": True}, {"id": "two"}]}, {"Ops Bot"}),
]


@pytest.mark.parametrize(("release", "agents", "beat"), SPELLED)
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "silenced"])
def test_owners_agents_keep_their_blocks_and_are_named_as_they_are_spelled(
    engine: Engine,
    hands: Callable[..., Any],
    tmp_path: Path,
    release: str,
    agents: dict[str, Any],
    beat: set[str],
    keep: bool,
) -> None:
    if release == "2026.9.6":
        agents = {"ownership": "explicit", **agents}
    with Simulator(
        release, token="gateway-token", state_dir=tmp_path, config={"agents": agents}
    ) as simulator:
        scene = make_scene(simulator, engine, hands(retry_inline_s=5, keep_default_heartbeat=keep))
        agent = scene.agent("Ada")
        job_id = scene.ask("provision_agent", agent_id=agent, wake=False)
        scene.serve()
        job = scene.job(job_id)
        stored = json.loads(simulator.config_path.read_text())["agents"]
    assert job.status == "succeeded", job.error
    entries = stored.get("entries") or {entry["id"]: entry for entry in stored["list"]}
    assert set(entries) - {"main"} == {f"mc-{agent}", "two", *(agents.get("entries") or ["Ops Bot"])}
    blocks = {name for name, entry in entries.items() if "heartbeat" in entry} - {f"mc-{agent}"}
    assert blocks == (beat if keep else set())
    told = " ".join(warning for warning in job.warnings if "first heartbeat block" in warning)
    assert all(name in told for name in beat)


def test_a_first_write_that_is_refused_warns_of_nothing_that_it_did(
    engine: Engine, hands: Callable[..., Any], tmp_path: Path
) -> None:
    with Simulator("2026.9.6", token="gateway-token", state_dir=tmp_path) as simulator:
        scene = make_scene(simulator, engine, hands(retry_inline_s=5, keep_default_heartbeat=True))
        invalid = Refuse("invalid config: agents.entries.main: nope", code="INVALID_REQUEST")
        simulator.faults.schedule(Fault(invalid, "config.patch", times=None))
        job_id = scene.ask("provision_agent", agent_id=scene.agent("Ada"), wake=False)
        scene.serve()
        job = scene.job(job_id)
    assert (job.status, job.warnings) == ("failed", [])


def test_a_config_that_nobody_may_change_is_a_refusal_at_once_and_no_outage(
    engine: Engine, hands: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "locked"
    with Simulator("2026.9.6", token="gateway-token", state_dir=folder) as simulator:
        scene = make_scene(simulator, engine, hands(retry_inline_s=5))
        agent = scene.agent("Ada")
        scene.provision(agent)
    locked = {"OPENCLAW_CONFIG_READONLY": "1"}
    with Simulator("2026.9.6", token="gateway-token", state_dir=folder, environment=locked) as simulator:
        execute(engine, "UPDATE gateways SET url = :url", url=simulator.url)
        scene = Scene(simulator, engine, scene.fleet, scene.services)
        new = scene.ask("provision_agent", agent_id=scene.agent("Bea"), wake=False)
        gone = scene.ask("delete_agent", agent_id=agent)
        scene.serve()
        for job in (scene.job(new), scene.job(gone)):
            assert job.status == "failed"
            assert "OPENCLAW_CONFIG_READONLY" in job.error
        rotated = scene.ask("update_agent", agent_id=agent, rotate_tokens=True, wake=False)
        scene.serve()
        assert scene.job(rotated).status == "succeeded", scene.job(rotated).error
        state = scene.row("SELECT down_since FROM provisioner.gateway_states")
        assert state.down_since is None
        assert sum(call.method == "config.patch" for call in simulator.calls) <= 1
