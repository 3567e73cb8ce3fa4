"""The ends of jobs of many agents are told to whoever listens, and so are agents that are woken together."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.integration.listening import listening
from tests.integration.sync.scene import Scene, on_one_release
from worker.jobs.requests import SyncHeartbeats
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.jobs import enqueue
from worker.roster.writer import write_roster
from worker.sync.heartbeat_job import execute_heartbeats

pytestmark = on_one_release


def waiting_heartbeat_job(scene: Scene) -> UUID:
    """A heartbeat job that waits for the roster writer."""
    with scene.engine.begin() as connection:
        request = SyncHeartbeats(gateway_id=scene.fleet.gateway_id)
        job_id = enqueue(connection, request, published=True).job_id
    scene.begin_heartbeats(job_id)
    return job_id


def test_a_sync_and_a_heartbeat_job_are_told_once_each(settled: Scene) -> None:
    with listening(settled.engine) as listener:
        sync = settled.sync()
        assert listener.batches() == [[(str(sync.id), "succeeded")]]
        settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}'""")
        beats = waiting_heartbeat_job(settled)
        write_roster(settled.services, settled.fleet.gateway_id)
        execute_heartbeats(settled.services, beats)
        assert listener.batches() == [[(str(beats), "succeeded")]]


def test_a_heartbeat_job_that_is_cancelled_is_told(settled: Scene) -> None:
    beats = waiting_heartbeat_job(settled)
    with listening(settled.engine) as listener:
        with settled.engine.begin() as connection:
            cancel(connection, beats)
        assert listener.batches() == [[(str(beats), "cancelled")]]


def test_agents_that_are_woken_together_are_one_notification(scene: Scene) -> None:
    agents = [scene.agent(f"Agent {n}") for n in range(9)]
    jobs: list[Any] = [scene.ask("provision_agent", agent_id=agent) for agent in agents]
    with listening(scene.engine) as listener:
        scene.serve_until_ended(*jobs)
        batches = listener.batches()
    assert sorted(one for batch in batches for one in batch) == sorted(
        (str(job), "succeeded") for job in jobs
    )
    assert max(map(len, batches)) > 1
