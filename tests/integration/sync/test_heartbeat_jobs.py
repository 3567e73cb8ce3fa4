"""A job that syncs heartbeat settings is claimed, leased and given up as any other (decisions.md D5, D6)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.integration.sync.scene import Scene, on_one_release
from worker.jobs.requests import SyncHeartbeats
from worker.jobs.store.jobs import enqueue
from worker.jobs.store.leases import NotClaimed
from worker.roster.writer import write_roster
from worker.sync import heartbeat_job
from worker.sync.heartbeat_job import execute_heartbeats

pytestmark = on_one_release


@pytest.fixture
def settled_job(settled: Scene) -> UUID:
    """A job whose intents the roster writer has settled, and whose message is on its way."""
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}'""")
    with settled.engine.begin() as connection:
        request = SyncHeartbeats(gateway_id=settled.fleet.gateway_id)
        job_id = enqueue(connection, request, published=True).job_id
    settled.begin_heartbeats(job_id)
    write_roster(settled.services, settled.fleet.gateway_id)
    return job_id


def _die_at_work(*_: Any) -> None:
    raise KeyboardInterrupt  # what no handler catches, as a process that is killed


def _expire(scene: Scene, job_id: UUID) -> None:
    expired = "lease_until = now() - interval '1 s', published_at = now()"
    scene.execute(f"UPDATE provisioner.jobs SET {expired} WHERE id = :id", id=job_id)


def test_two_messages_are_one_claim(settled: Scene, settled_job: UUID) -> None:
    outcome = execute_heartbeats(settled.services, settled_job)
    assert getattr(outcome, "status", None) == "succeeded"
    assert execute_heartbeats(settled.services, settled_job) is NotClaimed.NOTHING_TO_DO
    assert settled.job(settled_job).result["updated"] == 6


def test_a_worker_that_dies_at_it_is_followed_by_another(
    settled: Scene, settled_job: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(heartbeat_job, "_settle", _die_at_work)
        with pytest.raises(KeyboardInterrupt):
            execute_heartbeats(settled.services, settled_job)
    assert settled.job(settled_job).lease_until is not None
    assert execute_heartbeats(settled.services, settled_job) is NotClaimed.NOTHING_TO_DO
    _expire(settled, settled_job)
    execute_heartbeats(settled.services, settled_job)
    job = settled.job(settled_job)
    assert (job.status, job.crashes, job.lease_until) == ("succeeded", 1, None)


def test_a_job_at_which_workers_die_is_given_up(
    settled: Scene, settled_job: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat_job, "_settle", _die_at_work)
    for _ in range(settled.services.settings.crash_limit):
        with pytest.raises(KeyboardInterrupt):
            execute_heartbeats(settled.services, settled_job)
        _expire(settled, settled_job)
    execute_heartbeats(settled.services, settled_job)
    assert settled.job(settled_job).status == "succeeded", "its intents were settled all the same"


def test_a_fault_of_our_own_ends_it_with_the_rows_that_wait(
    settled: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(heartbeat_job, "give_up_overdue", fail)
    with settled.engine.begin() as connection:
        request = SyncHeartbeats(gateway_id=settled.fleet.gateway_id)
        job_id = enqueue(connection, request, published=True).job_id
    settled.begin_heartbeats(job_id)
    settled.execute("UPDATE provisioner.jobs SET published_at = now() WHERE id = :id", id=job_id)
    execute_heartbeats(settled.services, job_id)
    job = settled.job(job_id)
    assert job.status == "failed"
    assert "Internal error (ZeroDivisionError)" in job.error
    rows = settled.rows(job_id).values()
    assert {(row.status, row.reason_code) for row in rows} == {("failed", "internal_error")}
    assert job.reason_code == "internal_error"
    write_roster(settled.services, settled.fleet.gateway_id)
    assert settled.simulator.config_writes == 1, "the withdrawn intents are written by nobody"
