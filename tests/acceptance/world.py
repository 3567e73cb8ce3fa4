"""Everything that a provision needs, for real: database, broker, worker, and a gateway behind a proxy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from celery import Celery
from sqlalchemy import Engine, text
from sqlalchemy import update as sql_update

from models import Agent
from tests.acceptance.patient import PatientClient
from tests.acceptance.proxy import Proxy
from tests.benchmarks.bench import AwayClock
from tests.fleet import Fleet
from tests.gateways.stub_model import StubModel
from tests.worker_process import WorkerProcess
from worker.errors import TransientError
from worker.gateway.address import GatewayAddress
from worker.gateway.agent_files import AgentFiles
from worker.gateway.client import Call
from worker.gateway.device import DeviceKey
from worker.gateway.dialect import Dialect
from worker.gateway.errors import GatewayError, UnknownAgent
from worker.gateway.rewrites import removal_rewrites, rewrites_of
from worker.gateway.roster_reading import read_roster
from worker.lab.openclaw import RunningGateway
from worker.lab.simulator import Simulator
from worker.roster.rewrite_permission import allow
from worker.workspace.tokens import find_token

Value = TypeVar("Value")

MANY, BOARDS = 50, 5
"""How many of the large batch tests take together, on how many boards, each with a lead."""
FEWER = 20
"""How many of them tests take that work on each one's files, on the newest releases, which it costs five
times the CPU."""
TO_DELETE, SLOW_TO_DELETE, SIMULATED_TO_DELETE = 10, 6, 4
"""How many more are there to be deleted."""
AWAKE, SETTLED = 8, 34
SIMULATED_AWAKE, SIMULATED_SETTLED = 4, 24
"""How many are woken, a lead among them; how many tests take one by one: on a simulator fewer tests do."""
SIMULATED_ON_BOARDS = 20
"""How many of the many the boards share on a simulator, where more of them prove nothing more of a sync."""


@dataclass(frozen=True)
class Settled:
    """An agent that a job of ours has provisioned, and that nobody has woken."""

    agent_id: UUID
    openclaw_id: str


@dataclass(frozen=True)
class Batch:
    """All who were asked for in one moment, so that a release which allows a roster change every half minute
    is not asked for one by each test. ``awake``: those who were woken; ``jobs``: theirs, in that order;
    ``settled``: the others; ``calls``: what went through the proxy meanwhile; ``restarts``: how often the
    gateway went away."""

    awake: Sequence[UUID]
    jobs: list[Mapping[str, Any]]
    settled: list[Settled]
    config_before: Mapping[str, Any]
    calls: list[tuple[str, Mapping[str, Any]]]
    restarts: int

    @property
    def size(self) -> int:
        return len(self.awake) + len(self.settled)


@dataclass
class World:
    """One gateway with all that provisions agents on it."""

    release: str
    real: bool
    process: Simulator | RunningGateway
    config_path: Path
    proxy: Proxy
    engine: Engine
    fleet: Fleet
    app: Celery
    settings: Mapping[str, str]
    folder: Path
    gateway_token: str = field(repr=False)
    model: StubModel | None = None
    workers: list[WorkerProcess] = field(default_factory=list)

    @cached_property
    def batch(self) -> Batch:
        """A lead and members who are woken, and those that tests take one by one."""
        woken, taken = (AWAKE, SETTLED) if self.real else (SIMULATED_AWAKE, SIMULATED_SETTLED)
        awake = [self.fleet.add_agent("Lead", lead=True)]
        awake += [
            self.fleet.add_agent(f"Member {n}", heartbeat_config={"every": "15m"}) for n in range(1, woken)
        ]
        return self._at_once(awake, [self.fleet.add_agent(f"Settler {n}") for n in range(taken)])

    @cached_property
    def large_batch(self) -> Batch:
        """Those for tests that need many at once: on boards of their own, then the others, then those that
        are there to be deleted."""
        quiet = []
        for n in range(BOARDS):
            board = self.fleet.add_board(f"Board {n}")
            for m in range(self.on_boards // BOARDS):
                quiet.append(self.fleet.add_agent(f"Settler {n}-{m}", lead=m == 0, board_id=board))
        quiet += [self.fleet.add_agent(f"Settler 9-{n}") for n in range(MANY - self.on_boards)]
        to_delete = SLOW_TO_DELETE if self.is_slow else TO_DELETE if self.real else SIMULATED_TO_DELETE
        quiet += [self.fleet.add_agent(f"To delete {n}") for n in range(to_delete)]
        return self._at_once([], quiet)

    def _at_once(self, awake: Sequence[UUID], quiet: Sequence[UUID]) -> Batch:
        """Have two workers provision them all at once."""
        before = self.config()
        second = self.start_worker()
        self.proxy.forget()
        with AwayClock(GatewayAddress(self.process.url, self.gateway_token)) as away:
            asked = [self.send(agent) for agent in awake] + [self.send(agent, wake=False) for agent in quiet]
            jobs = [self.ended(job) for job in asked]
        second.stop()
        assert {job["status"] for job in jobs} == {"succeeded"}, [job["error"] for job in jobs]
        places = [str(job["result"]["openclaw_id"]) for job in jobs[len(awake) :]]
        settled = [Settled(agent, place) for agent, place in zip(quiet, places, strict=True)]
        return Batch(awake, jobs[: len(awake)], settled, before, list(self.proxy.calls), away.restarts)

    @property
    def on_boards(self) -> int:
        """How many of the many are on boards of their own, for what takes long on each one's files."""
        if self.is_slow:
            return FEWER
        return MANY if self.real else SIMULATED_ON_BOARDS

    @property
    def many(self) -> list[Settled]:
        """Those of the large batch for tests that need many at once. Each test leaves them as well as it
        found them, but for the last."""
        return self.large_batch.settled[:MANY]

    @property
    def to_delete(self) -> list[Settled]:
        """Those of the large batch for the test that deletes some."""
        return self.large_batch.settled[MANY:]

    def take(self) -> Settled:
        """One of the batch that no other test has."""
        return next(self._untaken)

    @cached_property
    def _untaken(self) -> Iterator[Settled]:
        return iter(self.batch.settled)

    def forget(self, agent_id: UUID) -> None:
        """Make the agent one that no job of ours has ever seen, though its gateway's roster holds it."""
        with self.engine.begin() as connection:
            for statement in _FORGET:
                connection.execute(statement, {"id": agent_id})

    @property
    def is_slow(self) -> bool:
        """Whether it is one of the real releases that take long for each agent."""
        return self.real and self.release >= "2026.8"

    @property
    def timeout_s(self) -> float:
        """How long a job may take, on this machine, under load."""
        return 180.0 if self.real else 120.0

    def start_worker(self, **settings: str) -> WorkerProcess:
        """One more worker process."""
        number = len(self.workers)
        worker = WorkerProcess(
            self.folder / f"worker-{number}.log",
            {**self.settings, **settings},
            name=f"w{number}",
        )
        self.workers.append(worker)
        return worker

    def stop_workers(self) -> None:
        """End all worker processes."""
        for worker in self.workers:
            worker.stop()

    def allow_rewrites(self) -> None:
        """Let our writes do to the owner's config what its release makes of it (2026.2.12)."""
        client = self.direct()
        hello = client.hello()
        live = read_roster(
            Dialect.from_hello(hello.server_version, hello.methods),
            lambda: client.call("config.get"),
            lambda: client.call("agents.list"),
        )
        client.close()
        with self.engine.begin() as connection:
            shown = {*rewrites_of(live, self.gateway_token), *removal_rewrites(live, live.ours)}
            allow(connection, self.fleet.gateway_id, [*shown])

    def direct(self) -> PatientClient:
        """A client of the test's own, past the proxy, with a device of its own."""
        return PatientClient(GatewayAddress(self.process.url, self.gateway_token), DeviceKey.generate())

    def send(self, agent_id: object, kind: str = "provision_agent", **arguments: Any) -> UUID:
        """Ask for a job about an agent."""
        return self.ask(kind, agent_id=agent_id, **arguments)

    def ask(self, kind: str, **arguments: Any) -> UUID:
        """Ask for a job as any service would: by name, through the broker."""
        job_id = uuid4()
        kwargs = {name: str(v) if isinstance(v, UUID) else v for name, v in arguments.items()}
        self.app.send_task(f"tasks.{kind}", kwargs=kwargs, task_id=str(job_id), ignore_result=True)
        return job_id

    def job(self, job_id: UUID) -> Mapping[str, Any] | None:
        """The job's row as it is."""
        with self.engine.connect() as connection:
            row = connection.execute(_JOB, {"id": job_id}).one_or_none()
        return None if row is None else dict(row._mapping)

    def says(self, job_id: UUID | str) -> str:
        """What a job waits for, or why it failed; "" for nothing."""
        row = self.job(UUID(str(job_id)))
        return str(row["error"] or "") if row is not None else ""

    def ended(self, job_id: UUID, timeout_s: float | None = None) -> Mapping[str, Any]:
        """The job's row once it has ended; ``timeout_s``: where it may take longer than others."""

        def probe() -> Mapping[str, Any] | None:
            row = self.job(job_id)
            return row if row is not None and row["status"] not in ("queued", "running") else None

        return self.eventually(probe, lambda: f"job {job_id} did not end: {self.job(job_id)}", timeout_s)

    def provision(self, *agents: UUID, **arguments: Any) -> list[Mapping[str, Any]]:
        """Provision agents at once, and see them all succeed."""
        jobs = [self.send(agent, **arguments) for agent in agents]
        rows = [self.ended(job) for job in jobs]
        assert [row["status"] for row in rows] == ["succeeded"] * len(rows), [row["error"] for row in rows]
        return rows

    def update(self, agent_id: UUID, **arguments: Any) -> Mapping[str, Any]:
        """Update an agent, and see the job end."""
        return self.ended(self.send(agent_id, "update_agent", **arguments))

    def set_agent(self, agent_id: UUID, **columns: Any) -> None:
        """Change columns of the agent's row, as Mission Control does."""
        with self.engine.begin() as connection:
            connection.execute(sql_update(Agent).where(Agent.id == agent_id).values(**columns))

    def token(self, openclaw_id: str) -> str | None:
        """The token that stands in the agent's workspace."""
        files = self.files(openclaw_id)
        carrier = files.dialect.credentials_in
        live = self.wait_for_answer(lambda: files.read([carrier])).get(carrier)
        files.client.close()
        return find_token(live.content or "", section=carrier == "AGENTS.md") if live else None

    def write(self, openclaw_id: str, **files: str) -> None:
        """Write files as the agent itself would; MEMORY for MEMORY.md."""
        theirs = self.files(openclaw_id)
        texts = {f"{name}.md": text for name, text in files.items()}
        self.wait_for_answer(lambda: theirs.write(texts, lambda name, written: None))
        theirs.client.close()

    def read(self, openclaw_id: str, name: str) -> str | None:
        """A file's content as the gateway tells it."""
        files = self.files(openclaw_id)
        live = self.wait_for_answer(lambda: files.read([name])).get(name)
        files.client.close()
        return live.content if live else None

    def answers(self, calls: Sequence[Call]) -> list[Mapping[str, Any]]:
        """What the gateway says to many calls at once, past the proxy. Raises GatewayError, the first one."""
        client = self.direct()
        try:
            return self.wait_for_answer(lambda: _all_of(client.call_many(calls, deadline_s=60)))
        finally:
            client.close()

    def wait_for_answer(self, ask: Callable[[], Value]) -> Value:
        """What ``ask`` reads from the gateway. For seconds after an agent was deleted, 2026.9.6 finds neither
        sessions nor workspaces of others: "Session history database read was revoked"."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                return ask()
            except (TransientError, UnknownAgent):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def contents(self, openclaw_ids: Sequence[str], name: str) -> list[str]:
        """One file of many agents, as the gateway tells it; "" where there is none."""
        calls = [Call("agents.files.get", {"agentId": each, "name": name}) for each in openclaw_ids]
        return [str(answer["file"].get("content") or "") for answer in self.answers(calls)]

    def row(self, job_id: UUID) -> Mapping[str, Any]:
        """The agent's row of a single-agent job."""
        with self.engine.connect() as connection:
            return connection.execute(_ROW, {"id": job_id}).one()._asdict()

    def agent(self, agent_id: UUID) -> Mapping[str, Any]:
        """The agent's row of Mission Control."""
        with self.engine.connect() as connection:
            return connection.execute(_AGENT, {"id": agent_id}).one()._asdict()

    def pending_hash(self, agent_id: UUID) -> str | None:
        """The hash of a token on its way, if there is one."""
        with self.engine.connect() as connection:
            pending: str | None = connection.execute(_PENDING, {"id": agent_id}).scalar_one()
        return pending

    def roster(self) -> dict[str, Any]:
        """Entries by OpenClaw id, as the gateway tells them."""
        agents = self.config().get("agents", {})
        entries: dict[str, Any] = agents.get("entries") or {e["id"]: e for e in agents.get("list", [])}
        return entries

    def config(self) -> dict[str, Any]:
        """openclaw.json as it stands on disk."""
        parsed: dict[str, Any] = json.loads(self.config_path.read_text())
        return parsed

    def files(self, openclaw_id: str) -> AgentFiles:
        """Reads an agent's workspace over the gateway, past the proxy."""
        client = self.direct()
        hello = client.hello()
        return AgentFiles(client, Dialect.from_hello(hello.server_version, hello.methods), openclaw_id)

    def eventually(
        self,
        probe: Callable[[], Value | None],
        otherwise: str | Callable[[], str],
        timeout_s: float | None = None,
    ) -> Value:
        """The first true value of ``probe``."""
        deadline = time.monotonic() + (timeout_s or self.timeout_s)
        while not (value := probe()):
            if time.monotonic() > deadline:
                logs = "\n".join(worker.log()[-2500:] for worker in self.workers[-2:])
                said = otherwise if isinstance(otherwise, str) else otherwise()
                raise AssertionError(f"{said}\n{logs}")
            time.sleep(0.05)
        return value


def _all_of(answers: Sequence[Mapping[str, Any] | GatewayError]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for answer in answers:
        if isinstance(answer, GatewayError):
            raise answer
        found.append(answer)
    return found


_JOB = text("SELECT * FROM provisioner.jobs WHERE id = :id")
_ROW = text("SELECT * FROM provisioner.job_agents WHERE job_id = :id")
_PENDING = text("SELECT pending_hash FROM provisioner.agent_credentials WHERE agent_id = :id")
_AGENT = text("SELECT * FROM agents WHERE id = :id")
_FORGET = (
    text("UPDATE agents SET agent_token_hash = NULL WHERE id = :id"),
    text("DELETE FROM provisioner.agent_credentials WHERE agent_id = :id"),
    text("DELETE FROM provisioner.agent_files WHERE agent_id = :id"),
)
