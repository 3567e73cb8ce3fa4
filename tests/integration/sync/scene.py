"""A gateway with a fleet on it, and a broker whose messages are served one after another, in this process."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, event, text

from tests.fleet import Fleet, make_fleet
from tests.owners_files import save
from tests.rows import execute_agent_row
from worker.jobs.intake import Accepted, Queued, accept, accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.requests import (
    AdoptAgent,
    BadRequestError,
    ProvisionGatewayMain,
    SyncHeartbeats,
)
from worker.jobs.store.job_leases import JobClaim
from worker.jobs.store.jobs import refuse
from worker.lab.simulator import Simulator
from worker.records.adoption import agent_to_become
from worker.records.agent_rows import ensure_main_agent
from worker.roster.writer import write_roster
from worker.runtime.services import Services
from worker.sync.adopt_gateway import begin as begin_adoption
from worker.sync.adopt_gateway import execute_adoption
from worker.sync.begin import begin
from worker.sync.execution import execute_sync
from worker.sync.heartbeat_job import begin as begin_heartbeats
from worker.sync.heartbeat_job import execute_heartbeats
from worker.sync.roll_outs.execution import begin as begin_roll_out
from worker.sync.roll_outs.execution import execute_roll_out
from worker.sync.rollback_job import enqueue_rollbacks


def on(*releases: str) -> pytest.MarkDecorator:
    """Run a test on these simulated releases instead of the usual two."""
    return pytest.mark.parametrize("simulator", releases, indirect=True)


on_one_release = on("2026.9.6")
"""For what no release has a say in."""

Sent = tuple[str, Mapping[str, Any], str | None]


@dataclass
class Scene:
    """``messages``: what the broker holds; ``served``: what it held, by task."""

    simulator: Simulator
    engine: Engine
    fleet: Fleet
    services: Services
    messages: list[Sent] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)

    def agent(self, name: str, **columns: Any) -> UUID:
        return self.fleet.add_agent(name, **columns)

    def main(self) -> UUID:
        with self.engine.begin() as connection:
            return ensure_main_agent(connection, self.fleet.gateway_id)

    def provision(self, *agents: UUID) -> None:
        """Bring them to life, none woken."""
        jobs = []
        for agent in agents:
            kind, target = ("provision_agent", {"agent_id": agent})
            if self.row("SELECT board_id FROM agents WHERE id = :id", id=agent).board_id is None:
                kind, target = ("provision_gateway_main", {"gateway_id": self.fleet.gateway_id})
            jobs.append(self.ask(kind, **target, wake=False))
        self.serve()
        for job in jobs:
            assert self.job(job).status == "succeeded", self.job(job).error

    def ask(self, kind: str, **arguments: Any) -> UUID:
        """One request, as by send_task."""
        job_id = uuid4()
        given = {name: str(v) if isinstance(v, UUID) else v for name, v in arguments.items()}
        self.messages.append((f"tasks.{kind}", given, str(job_id)))
        return job_id

    def change_boards(self) -> None:
        """Change a fact of every board, so that each of its agents has something to be written."""
        self.execute("UPDATE boards SET objective = :text", text=f"Anew, {uuid4()}.")

    def sync(self, **options: Any) -> Any:
        """A sync of the gateway from its request to its end."""
        job_id = self.ask("sync_gateway", gateway_id=self.fleet.gateway_id, **options)
        self.serve()
        return self.job(job_id)

    def save(self, name: str, content: Any) -> None:
        """The gateway's owner saves a file beside openclaw.json, or that one."""
        save(self.simulator.config_path.parent, name, content)

    def serve(self, most: int = 2000) -> None:
        """Serve messages until nothing is left to do now."""
        for _ in range(most):
            if not self.messages:
                publish_due(self.engine, self.send)
            if not self.messages:
                return
            self.one()
        raise AssertionError(f"still busy after {most} messages: {self.messages[:3]}")

    def serve_until_ended(self, *jobs: UUID) -> None:
        """Have what is parked come at once, for ten seconds at most beyond what the work takes: a gateway
        that restarts is away for a moment."""
        for _ in range(100):
            for table in ("job_agents", "jobs"):
                due = f"UPDATE provisioner.{table} SET next_attempt_at = now() WHERE status = 'running'"
                self.execute(due)
            self.execute("UPDATE provisioner.gateway_states SET writer_not_before = NULL, probe_until = NULL")
            self.serve()
            if all(self.job(job).status not in ("queued", "running") for job in jobs):
                return
            time.sleep(0.1)

    def one(self) -> None:
        """Serve the oldest message."""
        task, kwargs, task_id = self.messages.pop(0)
        self.served[task] += 1
        services = replace(self.services, send=self.send)
        if task == "tasks.write_roster":
            write_roster(services, UUID(kwargs["gateway_id"]))
        elif task == "tasks.sync_agent":
            execute_agent_row(services, UUID(kwargs["job_id"]), UUID(kwargs["agent_id"]), "sync_gateway")
        elif task == "tasks.finish_sync":
            execute_sync(services, UUID(kwargs["job_id"]))
        elif task == "tasks.adopt_gateway":
            job_id = self._begin("adopt_gateway", str(task_id), dict(kwargs), begin_adoption)
            execute_adoption(services, job_id, UUID(str(kwargs["gateway_id"])))
        elif task == "tasks.rollback_job":
            self._begin("rollback_job", str(task_id), dict(kwargs), enqueue_rollbacks)
        elif task == "tasks.roll_out":
            execute_roll_out(services, self._begin("roll_out", str(task_id), dict(kwargs), begin_roll_out))
        elif task == "tasks.sync_heartbeats":
            execute_heartbeats(services, UUID(str(task_id)))
        elif task == "tasks.sync_gateway":
            self._start_sync(services, str(task_id), dict(kwargs))
        else:
            self._single(services, task, str(task_id), dict(kwargs))

    def _start_sync(self, services: Services, task_id: str, kwargs: dict[str, Any]) -> None:
        held: list[JobClaim | None] = [None]

        def start(connection: Any, job_id: UUID, request: Any) -> None:
            held[0] = begin(connection, job_id, request, lease_s=services.settings.lease_s)

        job_id = self._begin("sync_gateway", task_id, kwargs, start)
        execute_sync(services, job_id, held[0])

    def _begin(self, kind: str, task_id: str, kwargs: dict[str, Any], begin: Callable[..., object]) -> UUID:
        """Accept a request for a job about a gateway, and start the job or refuse it."""
        with self.engine.begin() as connection:
            job = accept(connection, kind, task_id, (), kwargs)
            if isinstance(job, Queued):
                try:
                    begin(connection, job.job_id, job.request)
                except BadRequestError as error:
                    refuse(connection, job.job_id, kind, str(error), kwargs)
        return job.job_id

    def _single(self, services: Services, task: str, task_id: str, kwargs: dict[str, Any]) -> None:
        def agent_of(connection: Any, request: Any) -> UUID:
            if isinstance(request, ProvisionGatewayMain):
                return ensure_main_agent(connection, request.gateway_id)
            if isinstance(request, AdoptAgent):
                return agent_to_become(connection, request)
            return UUID(str(request.target_id))

        kind = task.removeprefix("tasks.")
        accepted = accept_agent_job(self.engine, kind, task_id, (), kwargs, agent_of)
        if isinstance(accepted, Accepted):
            execute_agent_row(services, accepted.job_id, accepted.agent_id, kind)

    def begin_heartbeats(self, job_id: UUID) -> None:
        """Bring a queued ``sync_heartbeats`` to where it waits for the roster writer."""
        with self.engine.begin() as connection:
            request = SyncHeartbeats(gateway_id=self.fleet.gateway_id)
            messages = begin_heartbeats(connection, job_id, request)
        replace(self.services, send=self.send).publish(messages)

    def send(self, task: str, kwargs: Mapping[str, Any], task_id: str | None) -> None:
        self.messages.append((task, dict(kwargs), task_id))

    def job(self, job_id: UUID) -> Any:
        return self.row("SELECT * FROM provisioner.jobs WHERE id = :id", id=job_id)

    def rows(self, job_id: UUID) -> dict[str, Any]:
        """The job's rows by the names of their agents."""
        with self.engine.connect() as connection:
            found = connection.execute(
                text("SELECT * FROM provisioner.job_agents WHERE job_id = :id"), {"id": job_id}
            )
            return {row.agent_name: row for row in found}

    def row(self, statement: str, **parameters: Any) -> Any:
        with self.engine.begin() as connection:
            return connection.execute(text(statement), parameters).one()

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    @contextmanager
    def counting(self) -> Iterator[Costs]:
        """What the block costs: calls to the gateway by method, SQL statements, messages by task."""
        costs = Costs()

        def on_execute(*_: Any) -> None:
            costs.statements += 1

        calls, served = len(self.simulator.journal.calls), self.served.copy()
        event.listen(self.engine, "after_cursor_execute", on_execute)
        try:
            yield costs
        finally:
            event.remove(self.engine, "after_cursor_execute", on_execute)
            costs.calls = Counter(call.method for call in self.simulator.journal.calls[calls:])
            costs.messages = self.served - served


@dataclass
class Costs:
    """What something cost."""

    calls: Counter[str] = field(default_factory=Counter)
    statements: int = 0
    messages: Counter[str] = field(default_factory=Counter)


def make_scene(simulator: Simulator, engine: Engine, services: Services) -> Scene:
    """An empty gateway with one board."""
    fleet = make_fleet(
        engine, url=simulator.url, token=simulator.token, workspace_root=str(simulator.state_dir / "ws")
    )
    return Scene(simulator, engine, fleet, services)
