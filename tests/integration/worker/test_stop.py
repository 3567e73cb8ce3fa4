"""SIGTERM: what runs is finished or parked, the worker leaves within its grace, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.integration.agents.fleet import one
from tests.integration.worker.planting import plant
from tests.integration.worker.workshop import Workshop, calls
from worker.lab.simulator import Timings

GRACE_S = 45.0
AGENTS = 50
PROVISIONS = 8


@pytest.fixture
def alone(open_workshop: Callable[[], Workshop]) -> Workshop:
    """A workshop with one worker, which waits long for a gateway."""
    workshop = open_workshop()
    workshop.start_worker(RETRY_INLINE_S="20", RETRY_TIMEOUT_S="60", LEASE_S="30")
    return workshop


def test_what_is_at_work_is_finished_and_what_waits_is_parked(alone: Workshop) -> None:
    busy, waiting = alone.place("2026.9.6"), alone.place("2026.9.6")
    hold = busy.proxy.hold(calls("agents.files.set", name="SOUL.md"))
    waiting.simulator.stop()
    at_work, in_backoff = alone.send(busy.fleet.agent_id), alone.send(waiting.fleet.agent_id)
    assert hold.reached.wait(60)
    alone.eventually(lambda: alone.job(in_backoff).agent_phase == "intent")
    [worker] = alone.workers
    worker.terminate()
    parked = alone.eventually(
        lambda: row if (row := alone.job(in_backoff)).lease_until is None else None, within_s=GRACE_S
    )
    assert (parked.status, parked.attempts) == ("running", 0)
    assert parked.reason.startswith("this worker is stopping: ")
    hold.release()
    began = time.monotonic()
    assert worker.wait(GRACE_S) == 0
    assert time.monotonic() - began < 20
    assert (alone.job(at_work).status, alone.job(at_work).agent_status) in [
        ("succeeded", "succeeded"),
        ("running", "running"),
    ]
    waiting.simulator.start()
    alone.start_worker(LEASE_S="3")
    for key, place in ((at_work, busy), (in_backoff, waiting)):
        row = alone.ended(key)
        assert (row.status, row.attempts) == ("succeeded", 0), row.error
        assert place.count("chat.send") == 1
        assert place.differences(place.fleet.agent_id) == []


def test_a_stop_amid_a_sync_and_provisions_loses_nothing_and_wakes_nobody_twice(
    open_workshop: Callable[[], Workshop], pytestconfig: pytest.Config
) -> None:
    """``--seconds-slow 5``: the calls of one provision take longer than there is time for."""
    slow_s = float(pytestconfig.getoption("--seconds-slow"))
    workshop = open_workshop()
    fleet = workshop.place("2026.9.6", agents=AGENTS, timings=Timings(latency_s=min(1.0, slow_s)))
    plant(fleet, fleet.fleet.agents)
    fresh = workshop.place("2026.9.6", agents=PROVISIONS, timings=Timings(latency_s=slow_s))
    patient = {"RETRY_INLINE_S": "20", "RETRY_TIMEOUT_S": "600", "LEASE_S": "30"}
    worker = workshop.start_worker(**patient)
    holds = [fresh.proxy.hold(calls("agents.files.set", name="SOUL.md")) for _ in range(PROVISIONS)]
    keys = [workshop.send(agent) for agent in fresh.fleet.agents]
    assert all(hold.reached.wait(30 + 20 * slow_s) for hold in holds)
    run = workshop.ask("sync_gateway", gateway_id=fleet.fleet.gateway_id, include_main=False)
    workshop.eventually(lambda: (one(workshop.engine, _DONE, run=run)[0] or 0) >= 10, within_s=240)
    worker.terminate()
    began = time.monotonic()
    for hold in holds:
        hold.release()
    assert worker.wait(GRACE_S) == 0
    took_s = time.monotonic() - began
    held, done, provisioned = tuple(one(workshop.engine, _LEFT, run=run))
    print(f"stopped in {took_s:.1f} s: {done} of {AGENTS} agents, {provisioned} of {PROVISIONS} provisions")
    assert held == 0, "all that was at work is ended or handed back, and waits for no lease to run out"
    assert 0 < done < AGENTS
    workshop.start_worker(**patient)
    began = time.monotonic()
    assert workshop.ended(run, 300).status == "succeeded"
    assert {workshop.ended(key, 300).status for key in keys} == {"succeeded"}
    print(f"done by the next worker in {time.monotonic() - began:.1f} s")
    assert tuple(one(workshop.engine, _OUTCOME, run=run)) == (AGENTS, AGENTS, 0)
    assert fleet.count("chat.send") == 0
    for agent in fresh.fleet.agents:
        assert fresh.count("chat.send", sessionKey=fresh.record(agent).session_key) == 1
        assert fresh.differences(agent) == []
    for agent in fleet.fleet.agents:
        assert fleet.file(agent, "SOUL.md") == fleet.rendering(agent)["SOUL.md"].text


_DONE = "SELECT max(agents_done) FROM provisioner.jobs WHERE id = :run"
_LEFT = """
    SELECT (SELECT count(*) FROM provisioner.job_agents WHERE lease_until > now())
        + (SELECT count(*) FROM provisioner.jobs WHERE lease_until > now()),
        (SELECT agents_done FROM provisioner.jobs WHERE id = :run),
        (SELECT count(*) FROM provisioner.jobs WHERE kind = 'provision_agent' AND status = 'succeeded')
"""
_OUTCOME = """
    SELECT (SELECT agents_done FROM provisioner.jobs WHERE id = :run), (
            SELECT count(*) FROM provisioner.job_agents WHERE job_id = :run AND status = 'succeeded'
        ), (SELECT max(attempts) FROM provisioner.job_agents)
"""
