"""Requests that cannot be served: each a failed job with a sentence, no traceback, and the worker goes on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, update

from models import Agent, User
from tests.integration.agents.fleet import agent_row, execute, insert_job, one, seed_fleet
from tests.integration.worker.workshop import RELEASES, Place, Workshop

MISSING = UUID("00000000-0000-4000-8000-000000000000")


@pytest.fixture(scope="module", params=RELEASES)
def place(request: pytest.FixtureRequest, workshop: Workshop) -> Place:
    return workshop.place(request.param, agents=2)


@pytest.fixture(autouse=True)
def no_traceback(workshop: Workshop) -> Iterator[None]:
    """Nothing that a test does here is a surprise to a worker, and none of them dies of it."""
    before = len(workshop.logs())
    yield
    assert "Traceback" not in workshop.logs()[before:]
    assert all(worker.running for worker in workshop.workers)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"agent_id": "bob"}, "tasks.provision_agent: agent_id must be a UUID, not 'bob'."),
        ({"agent_id": None}, "tasks.provision_agent: agent_id is missing."),
        ({"agent_id": str(MISSING)}, f"There is no agent with agent_id {MISSING}."),
        (
            {"agent_id": str(MISSING), "wake": [1]},
            "tasks.provision_agent: wake must be true or false, not list.",
        ),
    ],
)
def test_arguments_that_cannot_be_right(workshop: Workshop, arguments: Any, sentence: str) -> None:
    row = workshop.ended(workshop.send(**arguments))
    assert (row.status, row.error) == ("failed", sentence)


def test_a_row_whose_agent_does_not_exist(workshop: Workshop) -> None:
    row = workshop.ended(insert_job(workshop.engine, MISSING))
    assert (row.status, row.error) == ("failed", f"There is no agent with agent_id {MISSING}.")


BROKEN = {
    "no URL": ("UPDATE gateways SET url = ' '", "has no URL: set gateways.url."),
    "a URL of another kind": ("UPDATE gateways SET url = 'http://x'", "write ws://x"),
    "no workspace root": ("UPDATE gateways SET workspace_root = ''", "workspace_root"),
    "no board": ("UPDATE agents SET board_id = NULL", "has no board"),
    "a board without a gateway": ("UPDATE boards SET gateway_id = NULL", "has no gateway: put both on one"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_rows_that_do_not_hold_together(workshop: Workshop, fault: str) -> None:
    """Each is refused before any gateway is asked, and the agent gets its status back."""
    change, words = BROKEN[fault]
    fleet = seed_fleet(workshop.engine, agent={"status": "online"})
    column = {"gateways": "id", "agents": "gateway_id", "boards": "gateway_id"}[change.split()[1]]
    execute(workshop.engine, f"{change} WHERE {column} = :id", id=fleet.gateway_id)
    row = workshop.ended(workshop.send(fleet.agent_id))
    assert row.status == "failed"
    assert words in row.error
    assert agent_row(workshop.engine, fleet.agent_id).status == "online"


def test_a_board_of_another_gateway(workshop: Workshop) -> None:
    fleet = seed_fleet(workshop.engine)
    elsewhere = fleet.add_gateway("elsewhere", "ws://127.0.0.1:9")
    execute(
        workshop.engine, "UPDATE boards SET gateway_id = :to WHERE id = :id", to=elsewhere, id=fleet.board_id
    )
    row = workshop.ended(workshop.send(fleet.agent_id))
    assert row.status == "failed"
    assert f"is on gateway {elsewhere}: put both on one gateway." in row.error


def test_a_user_of_another_organization(workshop: Workshop) -> None:
    fleet, stranger = seed_fleet(workshop.engine), uuid4()
    with workshop.engine.begin() as connection:
        connection.execute(insert(User).values(id=stranger, clerk_user_id="x", is_super_admin=False))
    row = workshop.ended(workshop.send(fleet.agent_id, user_id=str(stranger)))
    assert row.status == "failed"
    assert row.error == (f"The user_id {stranger} is not a member of the organization of gateway 'workshop'.")


@pytest.mark.parametrize(
    ("column", "template", "words"),
    [
        ("soul_template", "Hello\n{{ name", "SOUL.md override, line 2"),
        ("identity_template", "{{ cycler.__init__ }}", "IDENTITY.md override, line 1"),
    ],
)
def test_an_override_that_cannot_be_used_touches_nothing(
    workshop: Workshop, place: Place, column: str, template: str, words: str
) -> None:
    agent_id = place.fleet.agents[1]
    cleared = {"soul_template": None, "identity_template": None}
    with place.engine.begin() as connection:
        connection.execute(update(Agent).where(Agent.id == agent_id).values({**cleared, column: template}))
    before = place.count("config.patch")
    row = workshop.ended(workshop.send(agent_id))
    assert row.status == "failed"
    assert words in row.error
    assert place.count("config.patch") == before
    assert place.count("agents.files.set", agentId=place.record(agent_id).openclaw_id) == 0
    assert agent_row(place.engine, agent_id).agent_token_hash is None


def test_a_wrong_token_is_tried_once_and_then_not_again_until_it_changes(
    workshop: Workshop, place: Place
) -> None:
    gateway, agent_id = place.fleet.gateway_id, place.fleet.agent_id
    right = one(place.engine, "SELECT token FROM gateways WHERE id = :id", id=gateway).token
    execute(place.engine, "UPDATE gateways SET token = 'wrong-token-1' WHERE id = :id", id=gateway)
    refused = _refused(place)
    first = workshop.ended(workshop.send(agent_id))
    assert first.status == "failed"
    assert "token" in first.error
    assert "wrong-token-1" not in first.error
    assert _refused(place) == refused + 1
    rows = [workshop.ended(key) for key in [workshop.send(agent_id) for _ in range(3)]]
    assert all("refused this token before" in row.error for row in rows)
    assert _refused(place) == refused + 1
    assert agent_row(place.engine, agent_id).status == "offline"
    on_record = (
        "SELECT refused_token_fingerprint AS print, last_error FROM provisioner.gateway_states"
        " WHERE gateway_id = :id"
    )
    assert one(place.engine, on_record, id=gateway).print
    execute(place.engine, "UPDATE gateways SET token = :token WHERE id = :id", token=right, id=gateway)
    assert workshop.ended(workshop.send(agent_id)).status == "succeeded"
    assert tuple(one(place.engine, on_record, id=gateway)) == (None, None)


def _refused(place: Place) -> int:
    return sum(call.method == "connect" and not call.ok for call in place.simulator.calls)


@pytest.mark.parametrize("release", RELEASES)
def test_a_heartbeat_that_the_gateway_refuses_fails_its_agent_alone_by_name(
    workshop: Workshop, release: str
) -> None:
    place = workshop.place(release, agents=3)
    bad = place.fleet.agents[1]
    refused = '{"every": "10 bananas"}'
    execute(
        place.engine,
        "UPDATE agents SET heartbeat_config = CAST(:refused AS json) WHERE id = :id",
        refused=refused,
        id=bad,
    )
    rows = [workshop.ended(key) for key in [workshop.send(agent) for agent in place.fleet.agents]]
    assert [row.status for row in rows] == ["succeeded", "failed", "succeeded"]
    assert "invalid duration" in rows[1].error
    assert place.record(bad).openclaw_id not in place.simulator.agents()


def test_a_dead_port_is_tried_again_and_fails_when_the_budget_is_spent(workshop: Workshop) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        fleet = seed_fleet(workshop.engine, agents=3, url=url, agent={"status": "updating"})
        rows = [workshop.ended(key) for key in [workshop.send(agent) for agent in fleet.agents]]
    assert [row.status for row in rows] == ["failed"] * 3
    for row in rows:
        assert row.error.startswith("The gateway was unreachable for 5 seconds. Last error: ")
        assert row.generation >= 2
        assert row.attempts == 0
    assert {agent_row(workshop.engine, agent).status for agent in fleet.agents} == {"offline"}


def test_after_all_that_the_workers_serve_as_before(workshop: Workshop, place: Place) -> None:
    row = workshop.ended(workshop.send(place.fleet.agent_id))
    assert (row.status, place.differences(place.fleet.agent_id)) == ("succeeded", [])
