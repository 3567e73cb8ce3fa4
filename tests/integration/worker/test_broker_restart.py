"""The broker goes away while tasks are at work and requests come in: nobody ends, nothing is lost.

With Celery's own consumer the worker may end (celery.md 0.1): UPSTREAM=1 shows whether it still does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.proxy import Hold
from tests.integration.agents.fleet import insert_job, job_agent
from tests.integration.worker.workshop import Place, Workshop, calls
from tests.worker_process import ROOT
from worker.lab.servers import LocalServices
from worker.lab.servers.supervised_process import Program, SupervisedProcess

FAULT = "Unrecoverable error: AttributeError(\"'NoneType' object has no attribute 'hostname'\")"
AWAY = 12
"""Rows that come while the broker is away."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """A broker to take away, nobody else's."""
    with LocalServices(tmp_path_factory.mktemp("broker"), postgres=False, durable=False) as stack:
        yield stack


def _stock_worker(workshop: Workshop, log: Path) -> SupervisedProcess:
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
    worker = SupervisedProcess(Program(argv, env=environment, log_path=log, cwd=ROOT, grace_s=5.0))
    deadline = time.monotonic() + 60
    while " ready." not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return worker


def _at_work(workshop: Workshop) -> tuple[Place, Hold]:
    """A task of the workshop's worker that is in the middle of writing files."""
    place = workshop.place("2026.9.6", agents=1 + AWAY)
    hold = place.proxy.hold(calls("agents.files.set", name="SOUL.md"))
    workshop.send(place.fleet.agent_id, wake=False)
    assert hold.reached.wait(60)
    return place, hold


def test_a_worker_goes_on_after_the_broker_was_away(
    services: LocalServices, broker: LocalServices, tmp_path: Path
) -> None:
    host = broker.redis_url.rsplit("/", 1)[0]
    with Workshop(services.create_database("broker_ours"), f"{host}/1", tmp_path) as ours:
        worker = ours.start_worker(LEASE_S="10", RETRY_TIMEOUT_S="60")
        place, hold = _at_work(ours)
        broker.valkey.stop()
        keys = [insert_job(ours.engine, a, options='{"wake": false}') for a in place.fleet.agents[1:]]
        ours.eventually(lambda: "nothing can be published now" in worker.log())
        hold.release()
        broker.valkey.start()
        assert [ours.ended(key).status for key in keys] == ["succeeded"] * AWAY
        assert worker.running
        assert [job_agent(ours.engine, key).attempts for key in keys] == [0] * AWAY
        assert place.count("agents.files.set", name="SOUL.md") == 1 + AWAY
        assert all(place.differences(agent) == [] for agent in place.fleet.agents)
        assert "publishing again" in worker.log()
        assert "Traceback" not in worker.log()


@pytest.mark.skipif("UPSTREAM" not in os.environ, reason="says something of Celery alone: UPSTREAM=1")
def test_celerys_own_consumer_still_ends(
    services: LocalServices, broker: LocalServices, tmp_path: Path
) -> None:
    """For whoever raises the version of celery or kombu. It does not end at every loss of the broker."""
    host = broker.redis_url.rsplit("/", 1)[0]
    log = tmp_path / "stock.log"
    with Workshop(services.create_database("broker_stock"), f"{host}/2", tmp_path) as stock:
        worker = _stock_worker(stock, log)
        try:
            _, hold = _at_work(stock)
            broker.valkey.stop()
            stock.eventually(lambda: FAULT in log.read_text() or None, log.read_text)
            hold.release()
            assert worker.wait(30) == 1, "it lives through this by now: worker/reconnect.py can go"
        finally:
            worker.kill()
            broker.valkey.start()
