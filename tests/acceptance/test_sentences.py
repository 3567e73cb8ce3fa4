"""What the person reads whose job cannot be done: one sentence in the job's row, as the gateway's own refusal
gave cause for it (rules.md 44). tests/conformance has each kind; here is what becomes of it on its way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.acceptance.world import World
from tests.conformance.peer import JSON
from tests.conformance.tampering_proxy import refusing_upgrade, tampering_proxy
from worker.gateway.device import DeviceKey
from worker.lab.servers.ports import free_port
from worker.lab.simulator import Simulator


@pytest.fixture(autouse=True)
def no_traceback(world: World) -> Iterator[None]:
    """The workers' logs hold neither a traceback nor the gateway's token."""
    began = {worker.pid: len(worker.log()) for worker in world.workers}
    yield
    said = "".join(worker.log()[began.get(worker.pid, 0) :] for worker in world.workers)
    assert "Traceback" not in said
    assert world.gateway_token not in said


def agent_on(world: World, url: str, token: str | None) -> UUID:
    """An agent whose gateway is said to be at ``url``."""
    gateway = world.fleet.add_gateway("elsewhere", url, token, str(world.folder / "elsewhere"))
    board = world.fleet.add_board("Elsewhere", gateway_id=gateway)
    return world.fleet.add_agent("Reader", board_id=board, gateway_id=gateway)


def told(world: World, agent: UUID, *says: str) -> str:
    """The sentence that the agent's job failed with. Printed, for a person to read with ``pytest -rP``."""
    job = world.ended(world.send(agent))
    sentence = str(job["error"])
    print(f"JOB | {world.release} | {sentence}")
    assert job["status"] == "failed"
    for words in says:
        assert words in sentence
    assert re.fullmatch(r"[A-Z][^\n{}\[\]]*", sentence)
    assert world.gateway_token not in sentence
    assert world.agent(agent)["status"] == "offline"
    return sentence


def without_device(request: JSON) -> JSON:
    """A ``connect`` as if it came from a client without a device, so without rights (gateways.md 1)."""
    if request["method"] == "connect":
        request["params"] = {k: v for k, v in request["params"].items() if k not in ("device", "scopes")}
    return request


def from_the_future(request: JSON) -> JSON:
    """A ``connect`` that offers protocols to come."""
    if request["method"] == "connect":
        request["params"] |= {"minProtocol": 98, "maxProtocol": 99}
    return request


@contextmanager
def unpaired(world: World, folder: Path) -> Iterator[str]:
    """A gateway that takes us for a client from another machine."""
    with Simulator(world.release, token=world.gateway_token, state_dir=folder, remote=True) as simulator:
        yield simulator.url


REFUSALS: dict[str, tuple[str, ...]] = {
    "no token": ("wants a token and we have none", "gateways.token"),
    "no rights": ("scope", "openclaw devices approve"),
    "another protocol": ("protocol", "update"),
    "another web server": ("HTTP 404", "gateways.url"),
    "not paired": ("run `openclaw devices approve",),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_job_that_its_gateway_refuses_says_where_and_what_to_do(
    world: World, kind: str, tmp_path: Path
) -> None:
    url, token = world.process.url, world.gateway_token or None
    with ExitStack() as stack:
        match kind:
            case "no token":
                token = None
            case "no rights":
                url = stack.enter_context(tampering_proxy(url, change=without_device))
            case "another protocol":
                url = stack.enter_context(tampering_proxy(url, change=from_the_future))
            case "another web server":
                url = stack.enter_context(refusing_upgrade(HTTPStatus.NOT_FOUND))
            case "not paired":
                url = stack.enter_context(unpaired(world, tmp_path))
        sentence = told(world, agent_on(world, url, token), url, *REFUSALS[kind])
    if kind == "not paired":
        key = DeviceKey.load_or_create(Path(world.settings["GATEWAY_DEVICE_KEY"]))
        assert key.device_id in sentence, "as `provisioner device show` prints it"


def test_a_heartbeat_that_the_gateway_refuses_names_the_agent_the_place_and_the_column(world: World) -> None:
    agent = world.fleet.add_agent("Banana", heartbeat_config={"every": "10 bananas"})
    told(world, agent, "'Banana'", "heartbeat.every: invalid duration", "agents.heartbeat_config")


def test_a_job_that_waits_says_for_what(world: World) -> None:
    url = f"ws://127.0.0.1:{free_port()}"
    job = world.send(agent_on(world, url, world.gateway_token))
    reason = world.eventually(lambda: _waiting(world, job), "it does not wait")
    print(f"JOB | {world.release} | (waits) {reason}")
    assert f"the gateway at {url} cannot be reached (Connection refused)" in reason
    assert "check that it runs" in reason
    with world.engine.begin() as connection:
        connection.execute(_CANCEL, {"id": job})
    assert world.ended(job)["status"] == "cancelled"


def _waiting(world: World, job: UUID) -> str | None:
    rows: Any
    with world.engine.connect() as connection:
        rows = connection.execute(_REASON, {"id": job}).scalars().all()
    return str(rows[0]) if rows and rows[0] else None


_REASON = text("SELECT reason FROM provisioner.job_agents WHERE job_id = :id AND next_attempt_at IS NOT NULL")
_CANCEL = text("UPDATE provisioner.jobs SET cancel_requested_at = now() WHERE id = :id")
