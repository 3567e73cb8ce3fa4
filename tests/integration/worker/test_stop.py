"""SIGTERM: what runs is finished or parked, the worker leaves within its grace, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.integration.worker.workshop import Workshop, calls

GRACE_S = 45.0


@pytest.fixture
def alone(open_workshop: Callable[[], Workshop]) -> Workshop:
    """A workshop with one worker, which waits long for a gateway."""
    workshop = open_workshop()
    workshop.start_worker(RETRY_INLINE_S="20", RETRY_BUDGET_S="60", LEASE_S="30")
    return workshop


def test_what_is_at_work_is_finished_and_what_waits_is_parked(alone: Workshop) -> None:
    busy, waiting = alone.place("2026.9.6"), alone.place("2026.9.6")
    hold = busy.door.hold(calls("agents.files.set", name="SOUL.md"))
    waiting.simulator.stop()
    at_work, in_backoff = alone.send(busy.fleet.agent_id), alone.send(waiting.fleet.agent_id)
    assert hold.reached.wait(20)
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
        assert (row.status, row.attempts) == ("succeeded", 0)
        assert place.count("chat.send") == 1
        assert place.differences(place.fleet.agent_id) == []
