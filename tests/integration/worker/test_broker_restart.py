"""The broker goes away while tasks are at work and requests come in: nobody ends, nothing is lost.

With Celery's own consumer the worker ends (celery.md 0.1). When that test fails, worker/consumer.py can go.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.proxy import Hold
from tests.integration.provisioning.fleet import insert_job, job_agent
from tests.integration.worker.workshop import Place, Workshop, calls
from tests.worker_process import ROOT
from worker.local import LocalServices
from worker.local.tethered import Program, Tethered

FAULT = "Unrecoverable error: AttributeError(\"'NoneType' object has no attribute 'hostname'\")"
AWAY = 12
"""Rows that come while the broker is away."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """A broker to take away, nobody else's."""
    with LocalServices(tmp_path_factory.mktemp("broker"), postgres=False, durable=False) as stack:
        yield stack


def _stock_worker(workshop: Workshop, log: Path) -> Tethered:
    argv = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "tests.integration.worker.stock_app",
        "worker",
        "-n",
        "s@%h",
    ]
    environment = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), **workshop.environment}
    worker = Tethered(Program(argv, env=environment, log_path=log, cwd=ROOT, grace_s=5.0))
    deadline = time.monotonic() + 60
    while " ready." not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return worker


def _at_work(workshop: Workshop) -> tuple[Place, Hold]:
    """A task of the workshop's worker that is in the middle of writing files."""
    place = workshop.place("2026.9.6", agents=1 + AWAY)
    hold = place.door.hold(calls("agents.files.set", name="SOUL.md"))
    workshop.send(place.fleet.agent_id, wake=False)
    assert hold.reached.wait(60)
    return place, hold


def test_ours_goes_on_and_the_stock_one_ends(
    services: LocalServices, broker: LocalServices, tmp_path: Path
) -> None:
    host = broker.redis_url.rsplit("/", 1)[0]
    ours = Workshop(services.create_database("broker_ours"), f"{host}/1", tmp_path)
    stock = Workshop(services.create_database("broker_stock"), f"{host}/2", tmp_path)
    with ours, stock:
        worker = ours.start_worker(LEASE_S="10", RETRY_BUDGET_S="60")
        log = tmp_path / "stock.log"
        stock_worker = _stock_worker(stock, log)
        try:
            place, hold = _at_work(ours)
            _, stock_hold = _at_work(stock)
            broker.valkey.stop()
            keys = [insert_job(ours.engine, a, options='{"wake": false}') for a in place.fleet.agents[1:]]
            stock.eventually(lambda: FAULT in log.read_text() or None, log.read_text)
            hold.release()
            stock_hold.release()
            stock_exit = stock_worker.wait(30)
        finally:
            stock_worker.kill()
        ours.eventually(lambda: "nothing can be published now" in worker.log())
        broker.valkey.start()
        assert [ours.ended(key).status for key in keys] == ["succeeded"] * AWAY
        assert worker.running
        assert [job_agent(ours.engine, key).attempts for key in keys] == [0] * AWAY
        assert place.count("agents.files.set", name="SOUL.md") == 1 + AWAY
        assert all(place.differences(agent) == [] for agent in place.fleet.agents)
        assert "publishing again" in worker.log()
        assert "Traceback" not in worker.log()
    assert stock_exit == 1, "Celery's own consumer lives through this by now: worker/consumer.py can go"
