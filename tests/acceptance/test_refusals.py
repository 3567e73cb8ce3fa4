"""Requests that cannot be served: each a failed job with a sentence, no traceback, and the worker goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.acceptance.world import World
from worker.jobs.requests import job_id


@pytest.fixture(scope="module")
def next_in_line(world: World) -> UUID:
    """An agent that a worker in good health serves at once."""
    return world.take().agent_id


@pytest.fixture(autouse=True)
def _no_traceback(world: World, next_in_line: UUID) -> Iterator[None]:
    """Whatever a test asks for, the log shows no traceback and no token, and the next job is served."""
    began = {worker.pid: len(worker.log()) for worker in world.workers}
    yield
    said = "".join(worker.log()[began.get(worker.pid, 0) :] for worker in world.workers)
    assert "Traceback" not in said
    assert world.gateway_token not in said
    world.provision(next_in_line, wake=False)


def test_an_unknown_agent_is_named(world: World) -> None:
    missing = uuid4()
    job = world.ended(world.send(missing))
    assert (job["status"], job["error"]) == ("failed", f"There is no agent with agent_id {missing}.")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"agent_id": "not-a-uuid"}, "agent_id must be a UUID, not 'not-a-uuid'"),
        ({"wake": "maybe"}, "wake must be true or false, not 'maybe'"),
        ({"user_id": 7, "force_bootstrap": []}, "force_bootstrap must be true or false, not list"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(
    world: World, arguments: dict[str, Any], sentence: str
) -> None:
    options = {name: value for name, value in arguments.items() if name != "agent_id"}
    job = world.ended(world.send(arguments.get("agent_id", uuid4()), **options))
    assert job["status"] == "failed"
    assert sentence in job["error"]


def test_a_gateway_without_a_url_is_named(world: World) -> None:
    gateway = world.fleet.add_gateway("bare", "")
    board = world.fleet.add_board("Bare", gateway_id=gateway)
    agent = world.fleet.add_agent("Homeless", board_id=board, gateway_id=gateway)
    job = world.ended(world.send(agent))
    assert job["status"] == "failed"
    assert "'bare'" in job["error"]
    assert "has no URL" in job["error"]
    assert world.agent(agent)["status"] == "offline"


def test_a_wrong_token_is_said_once_and_not_tried_again(world: World) -> None:
    gateway = world.fleet.add_gateway("locked", world.proxy.url, "wrong-token", str(world.folder / "x"))
    board = world.fleet.add_board("Locked", gateway_id=gateway)
    agent = world.fleet.add_agent("Outside", board_id=board, gateway_id=gateway)
    world.proxy.forget()
    first = world.ended(world.send(agent))
    second = world.ended(world.send(agent))
    assert (first["status"], second["status"]) == ("failed", "failed")
    assert "token" in first["error"]
    assert "refused this token before" in second["error"]
    assert "wrong-token" not in first["error"] + second["error"]
    assert world.proxy.count("connect") == 1
    assert world.agent(agent)["status"] == "offline"


def test_an_override_that_does_not_parse_fails_its_agent_before_the_gateway_is_touched(world: World) -> None:
    broken = world.fleet.add_agent("Broken", soul_template="fine\n{% if agent_name %}\nnever closed")
    shell = world.fleet.add_agent("Shell", identity_template="{{ ''.__class__.__mro__ }}")
    world.proxy.forget()
    jobs = [world.ended(world.send(agent)) for agent in (broken, shell)]
    assert [job["status"] for job in jobs] == ["failed", "failed"]
    assert re.search(r"SOUL.md override, line \d", jobs[0]["error"]), jobs[0]["error"]
    assert re.search(r"IDENTITY.md override, line 1", jobs[1]["error"]), jobs[1]["error"]
    assert world.proxy.count("config.patch", "agents.files.set") == 0
    assert world.agent(broken)["status"] == "offline"


def test_a_user_of_another_organization_is_refused(world: World) -> None:
    stranger = uuid4()
    job = world.ended(world.send(world.fleet.add_agent("Guarded"), user_id=str(stranger)))
    assert job["status"] == "failed"
    assert str(stranger) in job["error"]


def test_a_task_id_that_is_no_uuid_still_makes_a_job(world: World, next_in_line: UUID) -> None:
    world.app.send_task(
        "tasks.provision_agent",
        kwargs={"agent_id": str(next_in_line), "wake": False, "surprise": 1},
        task_id="nightly-42",
        ignore_result=True,
    )
    assert world.ended(job_id("nightly-42"))["status"] == "succeeded"
