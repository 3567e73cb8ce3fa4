"""Real workers on a real database and broker, and simulated gateways for them to work on."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

from celery import Celery
from sqlalchemy import Engine, Row

from models.migrate import migrate
from tests.acceptance.proxy import Proxy, Wanted
from tests.integration.agents.fleet import Fleet, agent_row, main_with_block, one, seed_fleet
from tests.worker_process import WorkerProcess
from worker.database import make_engine
from worker.lab.simulator import Simulator, Timings
from worker.records.agent_repository import AgentRecord, load_agent
from worker.workspace.rendering import Layout, RenderedWorkspace, render_workspace
from worker.workspace.tokens import PLACEHOLDER, find_token, verify_token

BASE_URL = "http://127.0.0.1:8000"
RELEASES = ("2026.2.12", "2026.9.6")
CARRIER = {"2026.2.12": "TOOLS.md", "2026.9.6": "AGENTS.md"}

QUICK: Mapping[str, str] = {
    "BASE_URL": BASE_URL,
    "LEASE_S": "3",
    "DISPATCH_INTERVAL_S": "0.25",
    "RETRY_INLINE_S": "0.5",
    "RETRY_TIMEOUT_S": "5",
    "ROSTER_BATCH_WINDOW_S": "0.1",
}
"""Budgets low enough for tests."""

_LAYOUTS = {
    "2026.2.12": Layout(
        frozenset(
            f"{stem}.md"
            for stem in ("AGENTS", "SOUL", "TOOLS", "IDENTITY", "USER", "HEARTBEAT", "BOOTSTRAP", "MEMORY")
        ),
        "TOOLS.md",
        "HEARTBEAT.md",
    ),
    "2026.9.6": Layout(
        frozenset(f"{stem}.md" for stem in ("AGENTS", "SOUL", "IDENTITY", "USER", "BOOTSTRAP", "MEMORY")),
        "AGENTS.md",
        "scratch",
    ),
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class Place:
    """One simulated gateway behind a proxy, with the fleet that lives on it."""

    engine: Engine
    simulator: Simulator
    proxy: Proxy
    fleet: Fleet

    @property
    def release(self) -> str:
        return self.simulator.release.name

    def count(self, method: str, **names: str) -> int:
        """How many calls of the method the gateway has carried out."""
        return sum(
            call.method == method and call.ok and names.items() <= call.names.items()
            for call in self.simulator.calls
        )

    def record(self, agent_id: UUID) -> AgentRecord:
        """What the worker knows of an agent."""
        with self.engine.connect() as connection:
            return load_agent(connection, agent_id)

    def rendering(self, agent_id: UUID) -> RenderedWorkspace:
        """What the agent's workspace must hold."""
        record = self.record(agent_id)
        layout = _LAYOUTS[self.release]
        return render_workspace(record.agent, record.board, record.gateway, record.user, BASE_URL, layout)

    def file(self, agent_id: UUID, name: str) -> str | None:
        """A file as it stands on the gateway's disk."""
        path = self.simulator.workspace(self.record(agent_id).openclaw_id) / name
        return path.read_bytes().decode() if path.exists() else None

    def token(self, agent_id: UUID) -> str:
        """The token in the agent's workspace, which is the one that its row verifies."""
        carrier = CARRIER[self.release]
        token = find_token(self.file(agent_id, carrier) or "", section=carrier == "AGENTS.md")
        assert token is not None
        assert verify_token(token, agent_row(self.engine, agent_id).agent_token_hash)
        return token

    def differences(self, agent_id: UUID) -> list[str]:
        """Names of files that do not equal their rendering to the byte."""
        token = self.token(agent_id)
        return [
            name
            for name, file in self.rendering(agent_id).items()
            if not self._gone_by_itself(name)
            if (self.scratch(agent_id) if file.kind == "scratch" else self.file(agent_id, name))
            != file.text.replace(PLACEHOLDER, token)
        ]

    def scratch(self, agent_id: UUID) -> str | None:
        """The heartbeat text as the gateway keeps it (2026.9.6)."""
        jobs = json.loads((self.simulator.state_dir / "cron" / "jobs.json").read_text())
        contents: list[str | None] = [
            job["scratch"]["content"] for job in jobs if job["agentId"] == self.record(agent_id).openclaw_id
        ]
        return contents[0] if contents else None

    def _gone_by_itself(self, name: str) -> bool:
        """2026.9.6 deletes it before the first run; the wake message carries it."""
        return name == "BOOTSTRAP.md" and self.release == "2026.9.6"


def calls(method: str, **names: str) -> Wanted:
    """Calls of the method whose parameters include ``names``."""

    def is_wanted(called: str, params: Mapping[str, Any]) -> bool:
        return called == method and names.items() <= dict(params).items()

    return is_wanted


@dataclass
class Workshop:
    """One database and broker with the workers on them. A context manager."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    folder: Path
    workers: list[WorkerProcess] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self.engine = make_engine(self.database_url)
        migrate(self.engine, standalone=True)
        self._app = Celery(broker=self.redis_url)
        self._app.conf.task_default_queue = "provisioning"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.kill()
        self._stack.close()
        self._app.close()
        self.engine.dispose()

    @property
    def environment(self) -> dict[str, str]:
        """What a worker of this workshop gets."""
        return {
            **QUICK,
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "GATEWAY_DEVICE_KEY": str(self.folder / "device.pem"),
        }

    def start_worker(self, **settings: str) -> WorkerProcess:
        """One more worker process, ready."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = WorkerProcess(log, {**self.environment, **settings}, name=f"w{len(self.workers)}")
        self.workers.append(worker)
        return worker

    def place(
        self, release: str, *, agents: int = 1, timings: Timings | None = None, **columns: Any
    ) -> Place:
        """One more gateway with a fleet; it stops when the workshop closes."""
        state = self.folder / f"gateway-{secrets.token_hex(4)}"
        token = secrets.token_urlsafe(24)
        simulator = Simulator(
            release,
            token=token,
            state_dir=state,
            reply="HEARTBEAT_OK",
            timings=timings or Timings(),
            config=main_with_block(release),
        ).start()
        self._stack.callback(simulator.stop)
        proxy = self._stack.enter_context(Proxy(simulator.url))
        values: dict[str, Any] = {
            "url": proxy.url,
            "token": token,
            "workspace_root": "~/.openclaw",
            **columns,
        }
        return Place(self.engine, simulator, proxy, seed_fleet(self.engine, agents=agents, **values))

    def send(self, agent_id: object, *, task_id: str | None = None, **arguments: Any) -> UUID:
        """Ask for a provision by name, as any service does. With ``agent_id`` None, without that argument."""
        key = task_id or str(uuid4())
        named = {} if agent_id is None else {"agent_id": str(agent_id)}
        kwargs = {**named, **arguments}
        self._app.send_task("tasks.provision_agent", kwargs=kwargs, task_id=key, ignore_result=True)
        return UUID(key)

    def ask(self, kind: str, *, task_id: str | None = None, **arguments: Any) -> UUID:
        """Ask for any job by name."""
        key = task_id or str(uuid4())
        kwargs = {name: str(v) if isinstance(v, UUID) else v for name, v in arguments.items()}
        self._app.send_task(f"tasks.{kind}", kwargs=kwargs, task_id=key, ignore_result=True)
        return UUID(key)

    def job(self, job_id: UUID) -> Row[Any]:
        """The job's row as it is; made-up values before there is one."""
        return one(self.engine, _JOB, id=job_id)

    def ended(self, job_id: UUID, within_s: float = 60) -> Row[Any]:
        """The job's row once it has ended."""

        def over() -> Row[Any] | None:
            row = self.job(job_id)
            return row if row.status not in ("none", "queued", "running") else None

        return self.eventually(over, lambda: f"{self.job(job_id)} has not ended", within_s)

    def eventually(
        self, probe: Callable[[], _T | None], otherwise: Callable[[], str] = str, within_s: float = 60
    ) -> _T:
        """The first true value of ``probe``."""
        deadline = time.monotonic() + within_s
        while not (value := probe()):
            if time.monotonic() > deadline:
                logs = "\n".join(worker.log()[-3000:] for worker in self.workers[-2:])
                raise AssertionError(f"{otherwise()}\n{logs}")
            time.sleep(0.03)
        return value

    def logs(self) -> str:
        """All that all workers have said."""
        return "".join(worker.log() for worker in self.workers)


_JOB = """
    SELECT coalesce(j.status, 'none') AS status, j.error, j.result, j.warnings, j.phase, j.published_at,
        r.status AS agent_status, r.phase AS agent_phase, r.attempts, r.generation, r.reason, r.lease_until,
        r.next_attempt_at, r.woken_at, r.wake_sent_at
    FROM (SELECT CAST(:id AS uuid) AS id) wanted
    LEFT JOIN provisioner.jobs j USING (id)
    LEFT JOIN LATERAL (SELECT * FROM provisioner.job_agents WHERE job_id = j.id LIMIT 1) r ON true
"""
