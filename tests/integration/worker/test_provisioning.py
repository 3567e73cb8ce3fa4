"""Provision through two real workers: what stands on the gateway and in Postgres afterwards."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row

from tests.integration.agents.fleet import agent_row, execute, insert_job, one
from tests.integration.worker.workshop import RELEASES, Place, Workshop, calls
from worker.lab.simulator import Timings

AT_ONCE = 10


@pytest.fixture(scope="module", params=RELEASES)
def place(request: pytest.FixtureRequest, workshop: Workshop) -> Place:
    """A gateway whose fleet was provisioned all at once."""
    place = workshop.place(request.param, agents=AT_ONCE)
    jobs = [workshop.send(agent_id) for agent_id in place.fleet.agents]
    ended = [workshop.ended(key) for key in jobs]
    assert [row.status for row in ended] == ["succeeded"] * AT_ONCE, [row.error for row in ended]
    assert [row.warnings for row in ended] == [[]] * AT_ONCE
    return place


def test_none_of_ten_at_once_is_lost_and_the_config_is_written_once(place: Place) -> None:
    roster = place.simulator.agents()
    for agent_id in place.fleet.agents:
        record = place.record(agent_id)
        assert roster[record.openclaw_id]["workspace"] == record.workspace
        assert roster[record.openclaw_id]["heartbeat"]["every"] == "10m"
    assert 1 <= place.count("config.patch") <= 2


def test_both_workers_took_part(workshop: Workshop, place: Place) -> None:
    for worker in workshop.workers:
        assert any(f"agent={str(agent_id)[:8]}" in worker.log() for agent_id in place.fleet.agents)


def test_files_equal_their_rendering_to_the_byte_and_tokens_verify(place: Place) -> None:
    tokens = {place.token(agent_id) for agent_id in place.fleet.agents}
    assert len(tokens) == AT_ONCE
    assert {agent_id: place.differences(agent_id) for agent_id in place.fleet.agents} == {
        agent_id: [] for agent_id in place.fleet.agents
    }


def test_each_agent_was_woken_once_and_stands_online(place: Place) -> None:
    for agent_id in place.fleet.agents:
        record = place.record(agent_id)
        assert place.count("chat.send", sessionKey=record.session_key) == 1
        row = agent_row(place.engine, agent_id)
        assert (row.status, row.provision_action, row.provision_requested_at) == ("online", None, None)
        assert row.openclaw_session_id == record.session_key
    assert place.count("sessions.reset") == 0


def test_again_nothing_is_written_and_the_token_is_kept(workshop: Workshop, place: Place) -> None:
    before = _writes(place), place.simulator.config_path.read_bytes(), place.token(place.fleet.agent_id)
    row = workshop.ended(workshop.send(place.fleet.agent_id))
    assert (row.status, row.result["token"], row.warnings) == ("succeeded", "reused", [])
    actions = {name: report["action"] for name, report in row.result["files"].items()}
    assert {name for name, action in actions.items() if action in ("create", "update")} == set()
    after = _writes(place), place.simulator.config_path.read_bytes(), place.token(place.fleet.agent_id)
    assert after == before


def _writes(place: Place) -> list[int]:
    counted = ("config.patch", "agents.files.set", "cron.scratch.set", "agents.create", "agents.update")
    return [*(place.count(method) for method in counted), place.simulator.restarts]


def test_the_result_says_what_was_done(workshop: Workshop, place: Place) -> None:
    agent_id = place.fleet.agents[1]
    row = workshop.ended(workshop.send(agent_id, wake=False))
    record = place.record(agent_id)
    assert set(row.result) == {
        *("agent_id", "openclaw_id", "session_key", "workspace_path"),
        *("files", "woken", "token", "warnings"),
    }
    assert row.result["agent_id"] == str(agent_id)
    assert row.result["openclaw_id"] == record.openclaw_id
    assert row.result["workspace_path"] == record.workspace
    assert row.result["woken"] is False


def test_what_an_agent_wrote_is_kept_and_what_went_missing_comes_back(
    workshop: Workshop, place: Place
) -> None:
    agent_id = place.fleet.agents[2]
    folder = place.simulator.workspace(place.record(agent_id).openclaw_id)
    (folder / "MEMORY.md").write_text("I remember.")
    (folder / "SOUL.md").unlink()
    row = workshop.ended(workshop.send(agent_id, wake=False))
    assert row.status == "succeeded"
    assert place.file(agent_id, "MEMORY.md") == "I remember."
    assert place.differences(agent_id) == ["MEMORY.md"]
    assert row.result["files"]["SOUL.md"]["action"] == "create"


def test_one_request_by_row_and_by_message_wakes_the_agent_once(workshop: Workshop, place: Place) -> None:
    agent_id = place.fleet.agents[3]
    key = place.record(agent_id).session_key
    before = place.count("chat.send", sessionKey=key)
    by_row = insert_job(place.engine, agent_id, request_id="both ways")
    by_message = [workshop.send(agent_id, request_id="both ways") for _ in range(5)]
    served = {row.id for row in _jobs(place, agent_id, "both ways")}
    assert len(served) == 1
    assert served <= {by_row, *by_message}
    assert workshop.ended(served.pop()).status == "succeeded"
    assert workshop.ended(workshop.send(agent_id, wake=False)).status == "succeeded"
    assert place.count("chat.send", sessionKey=key) == before + 1


def _jobs(place: Place, agent_id: UUID, request_id: str) -> list[Row[Any]]:
    with place.engine.connect() as connection:
        statement = "SELECT id FROM provisioner.jobs WHERE agent_id = %s AND request_id = %s"
        return list(connection.exec_driver_sql(statement, (agent_id, request_id)))


def test_a_bare_row_is_served_soon(workshop: Workshop, place: Place) -> None:
    key = insert_job(place.engine, place.fleet.agents[4], options='{"wake": false}')
    assert workshop.ended(key).status == "succeeded"
    wait = one(
        place.engine,
        "SELECT extract(epoch FROM started_at - created_at)::float FROM provisioner.jobs WHERE id = :id",
        id=key,
    )[0]
    assert wait < 15  # two seconds, on a machine that is not loaded


def test_a_task_id_that_is_no_uuid_is_named_in_the_log(workshop: Workshop, place: Place) -> None:
    agent_id = place.fleet.agents[5]
    name = f"nightly {uuid4()}"
    workshop._app.send_task(
        "tasks.provision_agent", kwargs={"agent_id": str(agent_id), "wake": False}, task_id=name
    )

    def served() -> UUID | None:
        said = [line for line in workshop.logs().splitlines() if f"task id {name} is not a UUID" in line]
        return UUID(said[0].split("its job is ")[1][:36]) if said else None

    assert workshop.ended(workshop.eventually(served)).status == "succeeded"


def test_the_owners_entries_and_keys_are_untouched(workshop: Workshop, place: Place) -> None:
    path = place.simulator.config_path
    config = json.loads(path.read_text())
    bot = {"name": "Owner's own", "identity": {"name": "Bot"}, "heartbeat": {"every": "3h"}}
    if place.release == "2026.2.12":
        config["agents"]["list"].insert(1, {"id": "bot", **bot})
    else:
        config["agents"]["entries"]["bot"] = bot
    config["messages"] = {"ackReactionScope": "all"}
    path.write_text(json.dumps(config))
    execute(place.engine, "UPDATE agents SET name = 'Renamed' WHERE id = :id", id=place.fleet.agents[6])
    row = workshop.ended(workshop.send(place.fleet.agents[6], wake=False))
    assert row.status == "succeeded"
    roster = place.simulator.agents()
    assert roster[row.result["openclaw_id"]]["name"] == "Renamed"
    assert {key: value for key, value in roster["bot"].items() if key != "id"} == bot
    assert json.loads(path.read_text())["messages"] == {"ackReactionScope": "all"}


def test_a_gateway_that_goes_away_in_the_middle_is_waited_for(workshop: Workshop, place: Place) -> None:
    agent_id = place.fleet.agents[7]
    folder = place.simulator.workspace(place.record(agent_id).openclaw_id)
    (folder / "SOUL.md").unlink()
    hold = place.proxy.hold(calls("agents.files.set", name="SOUL.md"))
    key = workshop.send(agent_id, wake=False)
    assert hold.reached.wait(60)
    place.simulator.stop()
    hold.drop()
    state = (
        "SELECT count(*) FROM provisioner.gateway_states WHERE gateway_id = :id AND down_since IS NOT NULL"
    )
    workshop.eventually(lambda: one(place.engine, state, id=place.fleet.gateway_id)[0])
    place.simulator.start()
    assert workshop.ended(key).status == "succeeded"
    assert place.differences(agent_id) == []
    assert one(place.engine, state, id=place.fleet.gateway_id)[0] == 0


def test_a_heartbeat_automation_that_comes_late_is_waited_for(workshop: Workshop) -> None:
    """2026.9.6 makes it some seconds after the agent's heartbeat block (gateways.md 8)."""
    place = workshop.place("2026.9.6", timings=Timings(heartbeat_job_s=1.0))
    key = workshop.send(place.fleet.agent_id, wake=False)
    row = workshop.ended(key)
    assert (row.status, row.attempts, row.warnings) == ("succeeded", 0, [])
    assert place.scratch(place.fleet.agent_id)
    assert place.differences(place.fleet.agent_id) == []
    assert "has made no heartbeat automation" in workshop.logs()
