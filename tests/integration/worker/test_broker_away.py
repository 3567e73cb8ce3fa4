"""Redis is away while one service inserts rows and another one calls send_task (docs/enqueue.md): every row's
job runs once, and each caller is told at once.

By itself a few seconds, and one way of going away; ``--seconds-away 120`` is two minutes, in every way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import redis

from tests.integration.agents.fleet import insert_job, one
from tests.integration.worker.test_enqueue_docs import PYTHON
from tests.integration.worker.workshop import Place, Workshop, calls
from worker.lab.servers import LocalServices

SERVICE = Path(__file__).with_name("asking_service.py")
WAYS = ("killed, data lost", "killed", "stopped", "stopped, data lost")
SLOTS = 4
TOLD_WITHIN_S = 3.0
SLACK_S = 10.0
"""For a machine that does much else: what hangs would hang for ever."""
PUBLISHED_WITHIN_S = 2.0
LONG_S = 60.0
"""Beyond it there is time for messages that Redis has lost: their rows are published again after a minute."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames:
        is_long = metafunc.config.getoption("--seconds-away") >= LONG_S
        metafunc.parametrize("way", WAYS if is_long else WAYS[:1])


@dataclass(frozen=True)
class SendAttempt:
    """One ask of a service: when it began, what it took, in seconds, and what came of it."""

    at: float
    took_s: float
    answer: str


class Service:
    """tests/integration/worker/asking_service.py, at work until `end`."""

    def __init__(self, redis_url: str, agent_id: UUID, log: Path) -> None:
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(SERVICE), PYTHON[1], str(agent_id)],
                env={"PATH": os.defpath, "REDIS_URL": redis_url},
                stdin=subprocess.PIPE,
                stdout=out,
            )

    def told(self) -> list[SendAttempt]:
        lines = self._log.read_text().splitlines(keepends=True)
        return [SendAttempt(*json.loads(line)) for line in lines if line.endswith("\n")]

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0


class Outage:
    """A broker that goes away in a certain ``way``, and comes back."""

    def __init__(self, broker: LocalServices, folder: Path, way: str) -> None:
        self._broker = broker
        self._data = folder / "valkey"
        self._way = way
        self.began_at = 0.0
        self.ended_at = 0.0

    def begin(self) -> None:
        self.began_at = time.time()
        if self._way.startswith("killed"):
            self._broker.valkey.kill()
        else:
            self._broker.valkey.stop()
        if "lost" in self._way:
            shutil.rmtree(self._data)

    def end(self) -> None:
        self._broker.valkey.start()
        self.ended_at = time.time()

    def told_meanwhile(self, told: list[SendAttempt]) -> list[SendAttempt]:
        """What was asked while it was surely away."""
        return [one for one in told if one.at > self.began_at + 0.5 and one.at + one.took_s < self.ended_at]


class Relay:
    """Notes when the messages of these jobs come to the broker."""

    def __init__(self, redis_url: str, keys: list[UUID]) -> None:
        self._url = redis_url
        self._wanted = {str(key) for key in keys}
        self._at: dict[str, float] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with redis.Redis.from_url(self._url) as client, client.monitor() as monitor:
            for seen in monitor.listen():
                if seen["command"].startswith("LPUSH provisioning"):
                    for key in self._wanted.intersection(_UUID.findall(seen["command"])):
                        self._at.setdefault(key, seen["time"])
                elif seen["command"].endswith("enough"):
                    return

    def end(self, since: float) -> tuple[float, float]:
        """How long after ``since`` the first and the last job came, in seconds."""
        with redis.Redis.from_url(self._url) as other:
            other.echo("enough")
        self._thread.join(10)
        return min(self._at.values()) - since, max(self._at.values()) - since


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalServices]:
    with LocalServices(tmp_path / "broker", postgres=False) as stack:
        yield stack


def test_every_row_is_served_once_and_every_caller_is_told_at_once(
    services: LocalServices, broker: LocalServices, tmp_path: Path, way: str, pytestconfig: pytest.Config
) -> None:
    away_s = float(pytestconfig.getoption("--seconds-away"))
    rows, early = (100, 10) if away_s >= LONG_S else (12, 0)
    outage = Outage(broker, tmp_path / "broker", way)
    database = services.create_database(f"broker_away_{WAYS.index(way)}")
    with Workshop(database, broker.redis_url, tmp_path) as workshop:
        place = workshop.place("2026.9.6", agents=rows + SLOTS + 1)
        asker, *others = place.fleet.agents
        at_work, inserted = list(others[:SLOTS]), others[SLOTS:]
        worker = workshop.start_worker(
            DISPATCH_INTERVAL_S="1", WORKER_CONCURRENCY=str(SLOTS), LEASE_S="30", RETRY_TIMEOUT_S="600"
        )
        service = Service(broker.redis_url, asker, tmp_path / "asked")
        workshop.eventually(lambda: len(service.told()) > 3 and status_of(workshop, asker) == "succeeded")
        holds = [place.proxy.hold(calls("agents.files.set", name="SOUL.md")) for _ in at_work]
        keys = [insert_job(workshop.engine, agent) for agent in at_work]
        assert all(hold.reached.wait(60) for hold in holds)
        assert slowest_start_s(workshop) < PUBLISHED_WITHIN_S + SLACK_S
        keys += [insert_job(workshop.engine, agent) for agent in inserted[:early]]
        workshop.eventually(lambda: all_published(workshop))

        outage.begin()
        began = time.monotonic()
        for n, agent in enumerate(inserted[early:]):
            time.sleep(max(0.0, began + n * away_s / (rows - early) - time.monotonic()))
            keys.append(insert_job(workshop.engine, agent))
            if n == 2:
                for hold in holds:
                    hold.release()
        workshop.eventually(lambda: len(refused(service.told())) > 1)
        outage.end()
        relay = Relay(broker.redis_url, keys)

        ended = [workshop.ended(key, 120) for key in keys]
        took_s = time.time() - outage.ended_at
        assert {row.status for row in ended} == {"succeeded"}
        if "lost" not in way:
            give_back_what_was_never_acknowledged(broker.redis_url)
        service.end()
        workshop.eventually(lambda: nothing_is_left(broker.redis_url))
        first_s, last_s = relay.end(outage.ended_at)
        assert worker.running
        assert "Traceback" not in worker.log()
        each_ran_once(place, keys, held=at_work)
        meanwhile = outage.told_meanwhile(service.told())
    longest_s = max(one.took_s for one in meanwhile)
    times_s = [round(one.took_s, 2) for one in meanwhile]
    print(
        f"{way}: away for {outage.ended_at - outage.began_at:.0f} s, {len(keys)} rows published after"
        f" {first_s:.1f} to {last_s:.1f} s, ended after {took_s:.1f} s; {len(service.told())} asks,"
        f" {len(meanwhile)} of them meanwhile, none longer than {longest_s:.2f} s: {times_s}"
    )
    assert first_s < PUBLISHED_WITHIN_S + SLACK_S
    assert longest_s < TOLD_WITHIN_S + SLACK_S
    assert len(refused(meanwhile)) == len(meanwhile) > away_s / 5
    assert service.told()[-1].answer == "asked"


def refused(told: list[SendAttempt]) -> list[SendAttempt]:
    """Who was told that it did not work, in the words of the page."""
    return [one for one in told if one.answer.startswith("nothing was asked for, try again: ")]


def test_a_broker_that_hangs_holds_no_caller(broker: LocalServices, tmp_path: Path) -> None:
    service = Service(broker.redis_url, uuid4(), tmp_path / "asked")
    wait_for(lambda: len(service.told()) > 1)
    os.kill(broker.valkey.pid, signal.SIGSTOP)
    wait_for(lambda: len(refused(service.told())) > 1)
    os.kill(broker.valkey.pid, signal.SIGCONT)
    service.end()
    assert max(one.took_s for one in refused(service.told())) < TOLD_WITHIN_S + SLACK_S


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.1)


def each_ran_once(place: Place, keys: list[UUID], held: list[UUID]) -> None:
    """Every agent got its files and its wake once, and every job is one. A write that the gateway
    ``held`` may have been given up and sent again, for a silent gateway's slots are wanted by others."""
    for agent in place.fleet.agents:
        record = place.record(agent)
        assert place.count("chat.send", sessionKey=record.session_key) == 1
        written = place.count("agents.files.set", agentId=record.openclaw_id, name="SOUL.md")
        assert written >= 1 if agent in held else written == 1
    assert tuple(one(place.engine, _ALL)) == (len(keys) + 1, 0)


def give_back_what_was_never_acknowledged(redis_url: str) -> None:
    """Let the visibility timeout of all messages that a worker holds be over now; it is ten minutes."""
    with redis.Redis.from_url(redis_url) as client:
        for tag in client.zrange("unacked_index", 0, -1):
            client.zadd("unacked_index", {tag: 1})


def nothing_is_left(redis_url: str) -> bool:
    with redis.Redis.from_url(redis_url) as client:
        return not client.llen("provisioning") and not client.hlen("unacked")


def status_of(workshop: Workshop, agent_id: UUID) -> str | None:
    found = one(workshop.engine, "SELECT max(status) FROM provisioner.jobs WHERE agent_id = :id", id=agent_id)
    return found[0] and str(found[0])


def all_published(workshop: Workshop) -> bool:
    return not one(workshop.engine, "SELECT count(*) FROM provisioner.jobs WHERE next_attempt_at < now()")[0]


def slowest_start_s(workshop: Workshop) -> float:
    """From a row's insert to its job's first step, in seconds."""
    return float(one(workshop.engine, _SLOWEST)[0])


_SLOWEST = """
    SELECT max(extract(epoch FROM started_at - created_at)) FROM provisioner.jobs WHERE request_id IS NULL
"""
_ALL = """
    SELECT (SELECT count(*) FROM provisioner.jobs), (SELECT max(attempts) FROM provisioner.job_agents)
"""
