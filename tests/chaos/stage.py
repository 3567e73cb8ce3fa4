"""A stage for chaos: real workers on a real database and broker, simulated gateways, and a fleet on each.

The same commission is done on every stage: agents are provisioned, changed, synced, rotated and deleted.
What a scenario breaks meanwhile must not show in the end.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import redis
from sqlalchemy import text

from tests.chaos.oracle import State, differences, left_open, state_of, untrue_results, woken_twice
from tests.fleet import Fleet, make_fleet
from tests.integration.agents.fleet import main_with_block
from tests.integration.worker.workshop import RELEASES, Workshop
from tests.searching import all_keys, all_rows
from tests.worker_process import REDELIVERED, WorkerProcess
from worker.lab.servers import LocalServices
from worker.lab.simulator import Simulator
from worker.workspace.tokens import token_values

QUEUES = ("provisioning", "sync", "control")
QUIET_S = 60.0
"""Seconds for which the broker may take to have no message left once all jobs have ended."""
ENDED_S = 300.0
SETTINGS = {
    "LEASE_S": "3",
    "CRASH_LIMIT": "1000",
    "RETRY_TIMEOUT_S": "240",
    "RETRY_INLINE_S": "1",
    "LOG_LEVEL": "DEBUG",
    REDELIVERED: "10",
}
"""Workers take over quickly and give nothing up, and what a dead worker took is soon given away again: what
is lost here is lost for good."""


@dataclass(frozen=True)
class Site:
    """A gateway and the fleet that lives on it."""

    simulator: Simulator
    fleet: Fleet


@dataclass
class Stage:
    """``agents``: how many on each site; ``rng``: from the seed; ``broken``: how much was broken."""

    workshop: Workshop
    sites: Sequence[Site]
    agents: int
    rng: random.Random
    broken: int = 0
    failed: list[str] = field(default_factory=list)
    _workers: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start_worker(self, **settings: str) -> WorkerProcess:
        return self.workshop.start_worker(**SETTINGS, **settings)

    @property
    def workers(self) -> list[WorkerProcess]:
        """Those that run."""
        with self._lock:
            return [worker for worker in self.workshop.workers if worker.running]

    def replace(self, worker: WorkerProcess, end: Callable[[WorkerProcess], None]) -> None:
        """Start another worker, and end this one."""
        with self._lock:
            end(worker)
            self.start_worker()
        self.broken += 1

    def commission(self) -> None:
        """Do all the work, step by step, and wait for the end of each."""
        agents = [self._add(site, n) for site in self.sites for n in range(self.agents)]
        self._done([self.workshop.send(agent, wake=n % 3 == 0) for n, agent in enumerate(agents)])
        self._execute("UPDATE boards SET objective = 'Anew.'")
        self._execute("UPDATE agents SET heartbeat_config = CAST(:value AS json)", value='{"every": "25m"}')
        self._done(self._syncs())
        self._execute("UPDATE agents SET soul_template = 'I am changed.' WHERE name LIKE '%5'")
        half = agents[::2]
        self._done([self._update(agent, rotate_tokens=n % 2 == 0) for n, agent in enumerate(half)])
        late = [self._add(site, 900 + n) for site in self.sites for n in range(2)]
        jobs = [self.workshop.ask("delete_agent", agent_id=agent) for agent in agents[::6]]
        self._done([*jobs, *(self.workshop.send(agent, wake=True) for agent in late)])
        self._done(self._syncs())

    def _add(self, site: Site, number: int) -> UUID:
        return site.fleet.add_agent(f"Agent {number:03}")

    def _update(self, agent: UUID, **options: Any) -> UUID:
        return self.workshop.ask("update_agent", agent_id=agent, wake=False, **options)

    def _syncs(self) -> list[UUID]:
        return [
            self.workshop.ask("sync_gateway", gateway_id=site.fleet.gateway_id, include_main=False)
            for site in self.sites
        ]

    def _execute(self, statement: str, **parameters: Any) -> None:
        """Mission Control changes rows; a database that is away is tried again."""
        self.patiently(lambda: self._once(statement, parameters))

    def _once(self, statement: str, parameters: dict[str, Any]) -> None:
        with self.workshop.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def patiently(self, work: Callable[[], Any], within_s: float = 60.0) -> Any:
        """Repeat ``work`` until it raises nothing."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                return work()
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _done(self, jobs: Sequence[UUID]) -> None:
        for job_id in jobs:
            job = self._ended(job_id)
            if job.status != "succeeded":
                self.failed.append(f"job {job_id} {job.status}: {job.error}")

    def _ended(self, job_id: UUID) -> Any:
        deadline = time.monotonic() + ENDED_S
        while True:
            job = self.patiently(lambda: self.workshop.job(job_id))
            if job.status not in ("none", "queued", "running"):
                return job
            if time.monotonic() > deadline:
                raise AssertionError(f"job {job_id} has not ended after {ENDED_S:g} s: {job}")
            time.sleep(0.05)

    @contextmanager
    def disturbed_by(self, disturb: Callable[[], None], pause_s: tuple[float, float]) -> Iterator[None]:
        """Call ``disturb`` again and again within the block, after pauses between these seconds."""
        over, raised = threading.Event(), []

        def go_on() -> None:
            while not over.wait(self.rng.uniform(*pause_s)):
                try:
                    disturb()
                except Exception as error:
                    raised.append(error)
                    return

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if raised:
            raise raised[0]

    def state(self) -> State:
        """What agents, rosters, files and tokens are."""
        return state_of(self.workshop.engine, {site.fleet.gateway_id: site.simulator for site in self.sites})

    def verdict(self, expected: State | None) -> list[str]:
        """What the oracle finds, once all is quiet and the workers have stopped. ``expected``: what an
        undisturbed commission leaves; None if none was done."""
        found = [*self.failed, *self._messages_left()]
        found += differences(expected, self.state()) if expected is not None else []
        found += woken_twice(site.simulator for site in self.sites)
        for worker in self.workers:
            worker.stop()
        found += left_open(self.workshop.engine) + untrue_results(self.workshop.engine)
        return found + self._connections_left() + self._secrets_seen()

    def _messages_left(self) -> list[str]:
        left: list[str] = []
        with redis.Redis.from_url(self.workshop.redis_url) as client:
            for _ in range(int(QUIET_S * 5)):
                counts = {queue: int(client.llen(queue)) for queue in QUEUES}
                counts["taken and not acknowledged"] = int(client.hlen("unacked"))
                left = [f"{count} messages left: {queue}" for queue, count in counts.items() if count]
                if not left:
                    break
                time.sleep(0.2)
        return left

    def _connections_left(self) -> list[str]:
        for _ in range(50):
            with self.workshop.engine.connect() as connection:
                count = connection.execute(_SESSIONS).scalar_one()
            if not count:
                return []
            time.sleep(0.1)  # Postgres notices a moment later
        return [f"{count} database sessions left"]

    def _secrets_seen(self) -> list[str]:
        secrets = {f"the token of gateway {n}": site.simulator.token for n, site in enumerate(self.sites)}
        for site in self.sites:
            for path in site.simulator.state_dir.rglob("*.md"):
                for value in token_values(path.read_text(errors="replace")):
                    secrets[f"the token in {path.parent.name}/{path.name}"] = value
        places = {
            "the logs": self.workshop.logs(),
            "the broker": all_keys(self.workshop.redis_url),
            "the database": all_rows(self.workshop.engine),
        }
        return [
            f"{name} stands in {where}"
            for name, secret in secrets.items()
            for where, said in places.items()
            if secret in said
        ]


_SESSIONS = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE '%provisioner%'
""")


@contextmanager
def open_stage(
    services: LocalServices,
    folder: Path,
    name: str,
    *,
    agents: int,
    seed: str,
    releases: Sequence[str] = RELEASES,
    workers: int = 2,
) -> Iterator[Stage]:
    """A stage with a database, a broker's database and gateways of its own, and workers that are ready."""
    folder.mkdir(parents=True)
    with redis.Redis.from_url(services.redis_url) as client:
        client.flushall()
    database = services.create_database(name)
    with ExitStack() as stack:
        workshop = stack.enter_context(Workshop(database, services.redis_url, folder))
        sites = [_site(stack, workshop, folder, n, release) for n, release in enumerate(releases)]
        stage = Stage(workshop, sites, agents, random.Random(seed))
        for _ in range(workers):
            stage.start_worker()
        yield stage
    services.postgres.drop_database(name)


def _site(stack: ExitStack, workshop: Workshop, folder: Path, number: int, release: str) -> Site:
    token = f"gateway-token-of-{number}-nobody-may-see"
    simulator = stack.enter_context(
        Simulator(
            release,
            token=token,
            state_dir=folder / f"gateway-{number}",
            reply="OK",
            config=main_with_block(release),
        )
    )
    fleet = make_fleet(workshop.engine, url=simulator.url, token=token, workspace_root="~/.openclaw")
    with workshop.engine.begin() as connection:
        values = {"name": f"gateway {number}", "id": fleet.gateway_id}
        connection.execute(text("UPDATE gateways SET name = :name WHERE id = :id"), values)
    return Site(simulator, fleet)
