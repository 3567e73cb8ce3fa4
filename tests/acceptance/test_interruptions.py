"""Workers that die and gateways that go away, in the middle of a provision on a real release.

The simulator has its own, quicker tests of the same in tests/integration/worker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.proxy import Hold, Wanted
from tests.acceptance.world import World
from tests.worker_process import WorkerProcess
from worker.workspace.tokens import verify_token

pytestmark = pytest.mark.openclaw

RECOVERY_S = 120


def calls(method: str, **wanted: object) -> Wanted:
    """Calls of the method whose parameters include ``wanted``."""

    def is_wanted(called: str, params: Mapping[str, Any]) -> bool:
        return called == method and wanted.items() <= dict(params).items()

    return is_wanted


def reads_back(name: str) -> Wanted:
    """The first read of the file after it was written."""
    written = calls("agents.files.set", name=name)
    read = calls("agents.files.get", name=name)
    seen = False

    def is_wanted(called: str, params: Mapping[str, Any]) -> bool:
        nonlocal seen
        seen = seen or written(called, params)
        return seen and read(called, params)

    return is_wanted


@pytest.fixture
def fresh_worker(world: World) -> Iterator[WorkerProcess]:
    """A worker that has no connection yet, alone."""
    _ = world.batch
    world.stop_workers()
    worker = world.start_worker()
    yield worker
    if not any(each.running for each in world.workers):
        world.start_worker()


CARRIER = {"2026.2.12": "TOOLS.md", "2026.3.13": "TOOLS.md", "2026.9.6": "AGENTS.md"}


@pytest.mark.parametrize("phase", ["intent", "roster", "patched", "files", "credentials", "read back"])
def test_kill_9_in_any_phase_heals(world: World, fresh_worker: WorkerProcess, phase: str) -> None:
    carrier = CARRIER[world.release]
    if phase in ("roster", "patched"):
        agent_id = world.fleet.add_agent(f"Killed in {phase}")
    else:
        # The roster holds it already, so that a release which allows few patches needs none.
        agent_id = world.take().agent_id
        world.forget(agent_id)
        world.set_agent(agent_id, soul_template=f"Killed in {phase}.")
    hold = {
        "intent": lambda: world.proxy.hold(calls("connect")),
        "roster": lambda: world.proxy.hold(calls("config.patch")),
        "patched": lambda: world.proxy.hold(calls("config.patch"), after=True),
        "files": lambda: world.proxy.hold(calls("agents.files.set", name="SOUL.md")),
        "credentials": lambda: world.proxy.hold(calls("agents.files.set", name=carrier), after=True),
        "read back": lambda: world.proxy.hold(reads_back(carrier)),
    }[phase]()
    world.proxy.forget()
    job = kill_at(world, fresh_worker, hold, agent_id)
    assert job["status"] == "succeeded", job["error"]
    assert world.proxy.count("chat.send") == 1
    sees_its_token(world, agent_id, job)
    assert world.row(job["id"])["attempts"] == (0 if phase in ("roster", "patched") else 1)


@pytest.mark.parametrize("lost", [True, False])
def test_kill_9_while_waking_wakes_once_where_that_can_be_known(
    world: World, fresh_worker: WorkerProcess, lost: bool
) -> None:
    agent_id = world.take().agent_id
    world.proxy.forget()
    hold = world.proxy.hold(calls("chat.send"), after=not lost)
    job = kill_at(world, fresh_worker, hold, agent_id, lost=lost)
    assert job["status"] == "succeeded", job["error"]
    sees_its_token(world, agent_id, job)
    knows = world.release >= "2026.8"
    assert world.proxy.count("chat.send") == (1 if knows or not lost else 0)
    assert job["result"]["woken"] is knows
    assert bool(job["warnings"]) is not knows


def test_a_gateway_that_goes_away_in_the_middle_is_waited_for(world: World) -> None:
    agent_id = world.take().agent_id
    world.set_agent(agent_id, soul_template="Patient.")
    hold = world.proxy.hold(calls("agents.files.set", name="SOUL.md"))
    job_id = world.send(agent_id)
    assert hold.reached.wait(world.timeout_s)
    world.process.stop()
    hold.drop()
    time.sleep(2)
    world.process.start()
    job = world.ended(job_id)
    assert job["status"] == "succeeded", job["error"]
    sees_its_token(world, agent_id, job)


def kill_at(
    world: World, worker: WorkerProcess, hold: Hold, agent_id: UUID, *, lost: bool = True
) -> Mapping[str, Any]:
    """Kill the worker while the call is held, start another, and see the job end."""
    job_id = world.send(agent_id)
    assert hold.reached.wait(world.timeout_s), worker.log()[-2000:]
    worker.kill()
    if lost:
        hold.drop()
    else:
        hold.release()
    world.start_worker()
    began = time.monotonic()
    job = world.ended(job_id)
    assert time.monotonic() - began < RECOVERY_S
    return job


def sees_its_token(world: World, agent_id: UUID, job: Mapping[str, Any]) -> None:
    """The token in the workspace is the one that the agent's row verifies, and nothing is pending."""
    token = world.token(job["result"]["openclaw_id"])
    assert token is not None
    assert verify_token(token, world.agent(agent_id)["agent_token_hash"])
    assert world.pending_hash(agent_id) is None
    assert world.agent(agent_id)["status"] == "online"
