"""A stage for chaos: real workers on a real database and broker, simulated gateways, and a fleet on each.

The same commission is done on every stage: agents are provisioned, changed, synced, rotated and deleted.
What a scenario breaks meanwhile must not show in the end.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
import redis
from psycopg import sql
from sqlalchemy import make_url, text
from sqlalchemy.exc import IntegrityError

from tests.chaos.old_worker import OldWorker
from tests.chaos.oracle import State, differences, left_open, state_of, untrue_results, woken_twice
from tests.fleet import Fleet, make_fleet
from tests.integration.agents.fleet import insert_job, main_with_block
from tests.integration.worker.workshop import RELEASES, Workshop
from tests.searching import all_keys, all_rows
from tests.worker_process import REDELIVERED, REPUBLISHED, WorkerProcess
from worker.jobs.store.retrying import retry
from worker.lab.servers import LocalServices
from worker.lab.simulator import Simulator, Timings
from worker.lab.simulator.timings import QUICK
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
    REPUBLISHED: "8",
}
"""Workers take over quickly and give nothing up, and what a dead worker took and what a broker forgot is soon
given away again: what is lost here is lost for good."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Site:
    """A gateway and the fleet that lives on it."""

    simulator: Simulator
    fleet: Fleet


@dataclass
class Stage:
    """``agents``: how many on each site; ``rng``: from the seed; ``broken``: how much was broken.

    ``asks_by_rows``: whether jobs are asked for by rows, which no broker can lose, in place of messages;
    ``stack``: closes what a scenario opens, once the oracle has looked; ``asks_again``: a job that fails is
    retried until it succeeds.
    """

    services: LocalServices
    workshop: Workshop
    sites: Sequence[Site]
    agents: int
    rng: random.Random
    stack: ExitStack
    broken: int = 0
    asks_by_rows: bool = False
    asks_again: bool = False
    failed: list[str] = field(default_factory=list)
    _replaced: list[WorkerProcess] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start_worker(self, **settings: str) -> WorkerProcess:
        return self.workshop.start_worker(**SETTINGS, **settings)

    def start_old_worker(self, release: Path) -> WorkerProcess:
        """One more worker, of the release in that folder."""
        workshop, number = self.workshop, len(self.workshop.workers)
        worker = OldWorker(
            release,
            workshop.folder / f"worker-{number}.log",
            {**workshop.environment, **SETTINGS},
            name=f"old{number}",
        )
        workshop.workers.append(worker)
        return worker

    @property
    def workers(self) -> list[WorkerProcess]:
        """Those that run."""
        with self._lock:
            return [worker for worker in self.workshop.workers if worker.running]

    def replace(
        self,
        worker: WorkerProcess,
        end: Callable[[WorkerProcess], None],
        start: Callable[..., WorkerProcess] | None = None,
        **settings: str,
    ) -> None:
        """End this worker, and start another; ``start`` None: of this release."""
        with self._lock:
            self._replaced.append(worker)
            end(worker)
            (start or self.start_worker)(**settings)
        self.broken += 1

    def stop_workers(self) -> None:
        """Ask all of them to stop, as before work on what they use, and wait for that."""
        with self._lock:
            running = [worker for worker in self.workshop.workers if worker.running]
            self._replaced += running
            for worker in running:
                worker.terminate()
            for worker in running:
                worker.stop()

    def start_workers(self, count: int = 2) -> None:
        """Start so many, which is as many as there usually are."""
        for _ in range(count):
            self.start_worker()

    @property
    def database(self) -> str:
        """The name of the stage's database."""
        return str(make_url(self.workshop.database_url).database)

    def enter(self, opened: AbstractContextManager[_T]) -> _T:
        """Open something that stays open until the oracle has looked."""
        return self.stack.enter_context(opened)

    def commission(self) -> None:
        """Do all the work, step by step, and wait for the end of each."""
        self.change(self.begin())

    def begin(self) -> Sequence[UUID]:
        """The first half of the commission: all agents are provisioned."""
        agents = [self.add(site, f"Agent {n:03}") for site in self.sites for n in range(self.agents)]
        self.done([self.provision(agent, wake=n % 3 == 0) for n, agent in enumerate(agents)])
        return agents

    def change(self, agents: Sequence[UUID]) -> None:
        """The second half: they are changed, synced, rotated and deleted, and others join them."""
        self._execute("UPDATE boards SET objective = 'Anew.'")
        self._execute("UPDATE agents SET heartbeat_config = CAST(:value AS json)", value='{"every": "25m"}')
        self.done(self.syncs())
        self._execute("UPDATE agents SET soul_template = 'I am changed.' WHERE name LIKE '%5'")
        half = agents[::2]
        self.done([self.update(agent, rotate_tokens=n % 2 == 0) for n, agent in enumerate(half)])
        late = [self.add(site, f"Agent {900 + n}") for site in self.sites for n in range(2)]
        jobs = [self.delete(agent) for agent in agents[::6]]
        self.done([*jobs, *(self.provision(agent, wake=True) for agent in late)])
        self.done(self.syncs())

    def add(self, site: Site, name: str) -> UUID:
        """The agent of this name at the site, which is added unless it is there."""
        return self.patiently(lambda: self._found(site, name) or site.fleet.add_agent(name))

    def _found(self, site: Site, name: str) -> UUID | None:
        with self.workshop.engine.connect() as connection:
            values = {"name": name, "gateway_id": site.fleet.gateway_id}
            found: UUID | None = connection.execute(_AGENT, values).scalar()
        return found

    def provision(self, agent: UUID, *, wake: bool) -> UUID:
        """Ask for it; the job's id."""
        return self.ask("provision_agent", agent_id=agent, wake=wake)

    def update(self, agent: UUID, **options: Any) -> UUID:
        """Ask for it, without a wake; the job's id."""
        return self.ask("update_agent", agent_id=agent, wake=False, **options)

    def delete(self, agent: UUID) -> UUID:
        """Ask for it; the job's id."""
        return self.ask("delete_agent", agent_id=agent)

    def syncs(self, **options: Any) -> list[UUID]:
        """Ask for a sync of each gateway; the jobs' ids."""
        return [
            self.ask("sync_gateway", gateway_id=site.fleet.gateway_id, include_main=False, **options)
            for site in self.sites
        ]

    def ask(self, kind: str, **arguments: Any) -> UUID:
        """Ask for any job, again and again until the broker or the database has taken it; the job's id."""
        key = uuid4()
        if self.asks_by_rows:
            self.patiently(lambda: self._insert(key, kind, arguments))
        else:
            self.patiently(lambda: self.workshop.ask(kind, task_id=str(key), **arguments))
        return key

    def _insert(self, key: UUID, kind: str, arguments: dict[str, Any]) -> None:
        columns = {name: value for name, value in arguments.items() if name.endswith("_id")}
        options = {name: value for name, value in arguments.items() if name not in columns}
        values = {"id": key, "kind": kind, "options": json.dumps(options), "agent_id": None, **columns}
        with suppress(IntegrityError):  # the answer was lost, and the row is there
            insert_job(self.workshop.engine, **values)

    def lose_no_commit(self) -> None:
        """Have sessions from now on tell of a commit only when a killed server would still know it."""
        with self.administrator() as connection:
            query = sql.SQL("ALTER DATABASE {} SET synchronous_commit = on")
            connection.execute(query.format(sql.Identifier(self.database)))

    @contextmanager
    def administrator(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        """A session of the server's owner, in which each statement is a transaction, and may write."""
        url = self.services.postgres.url(database).replace("+psycopg", "")
        options = "-c default_transaction_read_only=off"
        with psycopg.connect(url, autocommit=True, options=options) as connection:
            yield connection

    def _execute(self, statement: str, **parameters: Any) -> None:
        """Mission Control changes rows; a database that is away is tried again."""
        self.patiently(lambda: self._once(statement, parameters))

    def _once(self, statement: str, parameters: dict[str, Any]) -> None:
        with self.workshop.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def patiently(self, work: Callable[[], _T], within_s: float = 60.0) -> _T:
        """Repeat ``work`` until it raises nothing."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                return work()
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def done(self, jobs: Sequence[UUID]) -> None:
        """Wait for the end of each; those that do not succeed are noted for the oracle."""
        for job_id in jobs:
            job = self.ended(job_id)
            until = time.monotonic() + ENDED_S
            while self.asks_again and job.status != "succeeded" and time.monotonic() < until:
                job_id, job = self._retried(job_id)
            if job.status != "succeeded":
                self.failed.append(f"job {job_id} {job.status}: {job.error}")

    def _retried(self, job_id: UUID) -> tuple[UUID, Any]:
        """Ask again for what the job left undone, and wait for that."""
        with self.workshop.engine.begin() as connection:
            again = retry(connection, job_id, requested_by=None)
        return again, self.ended(again)

    def ended(self, job_id: UUID) -> Any:
        """The job's row once it has ended. Raises AssertionError if it does not."""
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
        for worker in self.workshop.workers:
            if not worker.running and worker not in self._replaced:
                found.append(f"{worker.log_path.stem} has ended by itself")
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


_AGENT = text("SELECT id FROM agents WHERE name = :name AND gateway_id = :gateway_id")
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
    timings: Timings = QUICK,
) -> Iterator[Stage]:
    """A stage with a database, a broker's database and gateways of its own, and workers that are ready."""
    folder.mkdir(parents=True)
    with redis.Redis.from_url(services.redis_url) as client:
        client.flushall()
    database = services.create_database(name)
    with ExitStack() as stack:
        workshop = stack.enter_context(Workshop(database, services.redis_url, folder))
        sites = [_site(stack, workshop, folder, n, release, timings) for n, release in enumerate(releases)]
        stage = Stage(services, workshop, sites, agents, random.Random(seed), stack)
        stage.lose_no_commit()
        for _ in range(workers):
            stage.start_worker()
        yield stage
    services.postgres.drop_database(name)


def _site(
    stack: ExitStack, workshop: Workshop, folder: Path, number: int, release: str, timings: Timings
) -> Site:
    token = f"gateway-token-of-{number}-nobody-may-see"
    simulator = stack.enter_context(
        Simulator(
            release,
            token=token,
            state_dir=folder / f"gateway-{number}",
            reply="OK",
            config=main_with_block(release),
            timings=timings,
        )
    )
    fleet = make_fleet(workshop.engine, url=simulator.url, token=token, workspace_root="~/.openclaw")
    with workshop.engine.begin() as connection:
        values = {"name": f"gateway {number}", "id": fleet.gateway_id}
        connection.execute(text("UPDATE gateways SET name = :name WHERE id = :id"), values)
    return Site(simulator, fleet)
