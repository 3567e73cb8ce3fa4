"""Syncs of one gateway that are started in the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery.exceptions import Ignore
from sqlalchemy import Connection, text

from tests.integration.sync.scene import Scene, on_one_release
from worker.jobs.intake import Queued
from worker.jobs.requests import SyncGateway
from worker.jobs.store.jobs import enqueue
from worker.jobs.store.sync_jobs import OvertakenError
from worker.settings import settings
from worker.sync.begin import begin

pytestmark = on_one_release


@pytest.fixture
def outcomes(settled: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module that serves messages, with the scene's services."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:9/none")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:9/0")
    monkeypatch.setenv("BASE_URL", "http://127.0.0.1:9")
    settings.cache_clear()
    from tasks import outcomes, sync_gateway

    task = sync_gateway.sync_gateway
    monkeypatch.setattr(outcomes, "services", lambda: settled.services)
    monkeypatch.setattr(outcomes, "task", task, raising=False)
    yield outcomes
    settings.cache_clear()


@contextmanager
def starting(scene: Scene, job_id: UUID) -> Iterator[Callable[[Callable[[], None]], None]]:
    """A sync that is just being started: yields what does something meanwhile, and finds out too late."""
    running = (
        "INSERT INTO provisioner.jobs (id, kind, gateway_id, status, phase)"
        " VALUES (:id, 'sync_gateway', :gateway, 'running', 'main')"
    )

    def meanwhile(work: Callable[[], None]) -> None:
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(work)
            blocked = text("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            while not done.done() and not other.execute(blocked).all():
                other.execute(text("SELECT pg_stat_clear_snapshot()"))
            other.commit()
            done.result()

    with scene.engine.connect() as other:
        other.execute(text(running), {"id": job_id, "gateway": scene.fleet.gateway_id})
        yield meanwhile


def serve(outcomes: ModuleType, job_id: UUID, gateway_id: UUID, start: Any) -> None:
    """Serve a message of a sync as its task does, up to its start."""
    outcomes.task.push_request(id=str(job_id))
    with pytest.raises(Ignore):
        outcomes.run_job(outcomes.task, (), {"gateway_id": str(gateway_id)}, start, only_starts=True)


def test_the_one_that_comes_second_waits_and_runs_later(settled: Scene, outcomes: ModuleType) -> None:
    first, second, starts = uuid4(), uuid4(), list[str]()

    def start(connection: Connection, job: Queued) -> list[Any]:
        assert isinstance(job.request, SyncGateway)
        try:
            held = begin(connection, job.job_id, job.request, lease_s=30)
            if len(starts) < 3:  # as if another had come in between, and ended by now
                raise OvertakenError
            starts.append("waits" if held is None else "runs")
        except OvertakenError:
            starts.append("overtaken")
            raise
        return []

    with starting(settled, first) as meanwhile:
        meanwhile(lambda: serve(outcomes, second, settled.fleet.gateway_id, start))
    assert starts == ["overtaken", "overtaken", "overtaken", "waits"]
    job = settled.job(second)
    assert (job.status, job.phase, job.published_at, settled.rows(second)) == ("queued", "waiting", None, {})
    settled.execute("UPDATE provisioner.jobs SET status = 'succeeded' WHERE id = :id", id=first)
    settled.execute("UPDATE provisioner.jobs SET next_attempt_at = now() WHERE id = :id", id=second)
    settled.serve()
    assert settled.job(second).result["agents_unchanged"] == 5


def test_so_does_one_that_a_roll_out_begins_and_the_roll_out_goes_on(settled: Scene) -> None:
    request = SyncGateway(gateway_id=settled.fleet.gateway_id)
    children: list[UUID] = []

    def step() -> None:
        with settled.engine.begin() as connection:
            children.append(enqueue(connection, request).job_id)
            assert begin(connection, children[0], request) is None

    with starting(settled, uuid4()) as meanwhile:
        meanwhile(step)
    assert (settled.job(children[0]).status, settled.job(children[0]).phase) == ("queued", "waiting")
