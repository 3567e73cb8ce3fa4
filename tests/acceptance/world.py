"""Everything that a provision needs, for real: database, broker, worker, and a gateway behind a door."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from celery import Celery
from sqlalchemy import Engine, text
from sqlalchemy import update as sql_update

from models import Agent
from tests.acceptance.proxy import Door
from tests.fleet import Fleet
from tests.gateways.stub_model import StubModel
from tests.worker_process import WorkerProcess
from worker.gateway.address import GatewayAddress
from worker.gateway.client import GatewayClient
from worker.gateway.device import DeviceKey
from worker.gateway.dialect import Dialect
from worker.openclaw import RunningGateway
from worker.provisioning.workspace_files import AgentFiles
from worker.simulator import Simulator
from worker.workspace.credentials import find_token

Value = TypeVar("Value")


@dataclass
class World:
    """One gateway with all that provisions agents on it."""

    release: str
    real: bool
    process: Simulator | RunningGateway
    config_path: Path
    door: Door
    engine: Engine
    fleet: Fleet
    app: Celery
    settings: Mapping[str, str]
    folder: Path
    gateway_token: str = field(repr=False)
    model: StubModel | None = None
    workers: list[WorkerProcess] = field(default_factory=list)

    @property
    def patience_s(self) -> float:
        """How long a job may take, on this machine, under load."""
        return 90.0 if self.real else 30.0

    def start_worker(self, **settings: str) -> WorkerProcess:
        """One more worker process."""
        number = len(self.workers)
        worker = WorkerProcess(
            self.folder / f"worker-{number}.log", {**self.settings, **settings}, name=f"w{number}"
        )
        self.workers.append(worker)
        return worker

    def stop_workers(self) -> None:
        """End all worker processes."""
        for worker in self.workers:
            worker.stop()

    def direct(self) -> GatewayClient:
        """A client of the test's own, past the door, with a device of its own."""
        return GatewayClient(GatewayAddress(self.process.url, self.gateway_token), DeviceKey.generate())

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

    def ended(self, job_id: UUID) -> Mapping[str, Any]:
        """The job's row once it has ended."""

        def probe() -> Mapping[str, Any] | None:
            row = self.job(job_id)
            return row if row is not None and row["status"] not in ("queued", "running") else None

        return self.eventually(probe, f"job {job_id} did not end: {self.job(job_id)}")

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
        live = files.read([carrier]).get(carrier)
        files.client.close()
        return find_token(live.content or "", section=carrier == "AGENTS.md") if live else None

    def write(self, openclaw_id: str, **files: str) -> None:
        """Write files as the agent itself would; MEMORY for MEMORY.md."""
        theirs = self.files(openclaw_id)
        theirs.write({f"{name}.md": text for name, text in files.items()}, lambda name, written: None)
        theirs.client.close()

    def read(self, openclaw_id: str, name: str) -> str | None:
        """A file's content as the gateway tells it."""
        files = self.files(openclaw_id)
        live = files.read([name]).get(name)
        files.client.close()
        return live.content if live else None

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
        """Reads an agent's workspace over the gateway, past the door."""
        client = self.direct()
        hello = client.hello()
        return AgentFiles(client, Dialect.from_hello(hello.server_version, hello.methods), openclaw_id)

    def eventually(self, probe: Callable[[], Value | None], otherwise: str) -> Value:
        """The first true value of ``probe``."""
        deadline = time.monotonic() + self.patience_s
        while not (value := probe()):
            if time.monotonic() > deadline:
                logs = "\n".join(worker.log()[-2500:] for worker in self.workers[-2:])
                raise AssertionError(f"{otherwise}\n{logs}")
            time.sleep(0.05)
        return value


_JOB = text("SELECT * FROM provisioner.jobs WHERE id = :id")
_ROW = text("SELECT * FROM provisioner.job_agents WHERE job_id = :id")
_PENDING = text("SELECT pending_hash FROM provisioner.agent_credentials WHERE agent_id = :id")
_AGENT = text("SELECT * FROM agents WHERE id = :id")
