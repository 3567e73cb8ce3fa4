"""One seed's world: a gateway, a database, jobs that come, workers that serve them, mishaps in between."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Engine

from tests.integration.agents.fleet import Fleet, execute, job_agent, one
from tests.integration.interleavings.baton import Actor, PacedClients, PacedEngine, Times
from tests.rows import execute_agent_row
from worker.gateway.address import GatewayAddress
from worker.gateway.client import ClientPool
from worker.jobs.intake import Accepted, Queued, Started, accept, accept_agent_job
from worker.jobs.messages import Message
from worker.jobs.outbox import publish_due
from worker.jobs.requests import BadRequestError
from worker.jobs.store.job_agents import claim, finish, park
from worker.jobs.store.jobs import refuse
from worker.jobs.store.leases import NotClaimed
from worker.lab.simulator import Simulator
from worker.roster.intents import intent_states
from worker.roster.writer import write_roster
from worker.runtime.services import Services
from worker.sync import heartbeat_job

MOST_ACTORS = 4


@dataclass
class Stage:
    """``messages``: what the broker holds; ``log``: what happened, in order."""

    random: random.Random
    services: Services
    engine: Engine
    clients: tuple[ClientPool, ...]
    fleet: Fleet
    address: GatewayAddress
    simulator: Simulator
    messages: list[tuple[str, Mapping[str, Any], str | None]] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    started: int = 0
    overlapped: bool = False

    def __post_init__(self) -> None:
        self.times = Times(lambda: one(self.engine, _HOLDER)[0])

    def send(self, task: str, kwargs: Mapping[str, Any], task_id: str | None) -> None:
        """The broker takes a message."""
        self.messages.append((task, dict(kwargs), task_id))

    def start(self, name: str, work: Callable[[Services], None]) -> Actor:
        """Let somebody begin, in a worker process drawn from those that there are."""
        self.started += 1
        pool = self.random.choice(self.clients)
        actor = Actor(f"{name} {self.started}", lambda me: work(self._services(pool, me)), self.times)
        self.actors.append(actor)
        return actor

    def deliver(self) -> None:
        """One message, any of them, comes to a worker."""
        task, kwargs, task_id = self.messages.pop(self.random.randrange(len(self.messages)))
        kind = task.removeprefix("tasks.")
        if kind == "write_roster":
            self.start(kind, partial(write_roster, gateway_id=self.fleet.gateway_id))
        elif kind == "sync_heartbeats":
            self.start(kind, partial(_sync_heartbeats, task_id=str(task_id), kwargs=kwargs))
        else:
            self.start(kind, partial(_execute_agent, kind=kind, task_id=str(task_id), kwargs=kwargs))

    def step(self, actor: Actor) -> None:
        """Let one go on."""
        self.log.append(repr(actor))
        actor.step()
        assert not self.times.trespasses, self.times.trespasses
        if sum(each.writing for each in self.actors) > 1:
            names = [each.name for each in self.actors if each.writing]
            ours = [name for name in names if not name.startswith("outsider")]
            assert len(ours) < 2, f"two writers at once: {names}"
            self.overlapped = True
        if actor.done:
            self.actors.remove(actor)
            if actor.error is not None:
                raise AssertionError(f"{actor.name} ended with {actor.error!r}") from actor.error

    def kill(self, actor: Actor) -> None:
        """Its process dies; an answer that is on its way finds nobody."""
        self.log.append(f"{actor} is killed")
        actor.killed = True
        actor.step()
        assert actor.done
        self.actors.remove(actor)

    def tick(self) -> None:
        """Publish what is due, as the dispatcher does."""
        publish_due(self.engine, self.send)

    def jump(self) -> bool:
        """Time passes, more than any lease, limit or wait; not while a config write is on its way, which is
        what the model takes for granted of one."""
        if any(actor.writing for actor in self.actors):
            return False
        self.log.append("time passes")
        self.times.jumps += 1
        execute(self.engine, _ALL_IS_DUE)
        execute(self.engine, _ROWS_ARE_DUE)
        execute(self.engine, _JOBS_ARE_DUE)
        return True

    def config(self) -> dict[str, Any]:
        """The gateway's openclaw.json."""
        document: dict[str, Any] = json.loads(self.simulator.config_path.read_text())
        return document

    def open(self) -> int:
        """How many intents are open and jobs have not ended."""
        return int(one(self.engine, _OPEN)[0])

    def _services(self, pool: ClientPool, actor: Actor) -> Services:
        return replace(
            self.services,
            engine=cast(Engine, PacedEngine(self.engine, actor)),
            clients=cast(ClientPool, PacedClients(pool, actor)),
            send=self.send,
        )


_ALL_IS_DUE = """
    UPDATE provisioner.gateway_states SET writer_until = now() - interval '1 ms',
        writer_queued_at = writer_queued_at - interval '1 hour', probe_until = NULL,
        writer_not_before = NULL, rate_limited_until = NULL, restart_expected_at = NULL
"""
_ROWS_ARE_DUE = """
    UPDATE provisioner.job_agents SET next_attempt_at = now(),
        lease_until = CASE WHEN lease_until IS NULL THEN NULL ELSE now() - interval '1 ms' END
    WHERE status IN ('pending', 'running') AND next_attempt_at IS NOT NULL
"""
_JOBS_ARE_DUE = """
    UPDATE provisioner.jobs SET next_attempt_at = now()
    WHERE status IN ('queued', 'running') AND next_attempt_at IS NOT NULL
"""
_HOLDER = """
    SELECT max(writer_owner) FILTER (WHERE writer_until > now()) FROM provisioner.gateway_states
"""
_OPEN = """
    SELECT (SELECT count(*) FROM provisioner.roster_intents WHERE applied_at IS NULL AND error IS NULL)
        + (SELECT count(*) FROM provisioner.jobs WHERE status IN ('queued', 'running'))
"""


def _execute_agent(services: Services, kind: str, task_id: str, kwargs: Mapping[str, Any]) -> None:
    """A turn of a provision or a delete. What a provision does once its agent is in the roster is left out:
    it touches no config."""
    accepted = accept_agent_job(services.engine, kind, task_id, (), kwargs)
    if not isinstance(accepted, Accepted):
        return
    row = job_agent(services.engine, accepted.job_id)
    if kind == "delete_agent" or row.phase in (None, "intent"):
        execute_agent_row(services, accepted.job_id, accepted.agent_id, kind)
    else:
        _conclude(services, accepted.job_id, accepted.agent_id, kind)


def _conclude(services: Services, job_id: UUID, agent_id: UUID, kind: str) -> None:
    held = claim(services.engine, job_id, agent_id, kind, lease_s=services.settings.lease_s)
    if isinstance(held, NotClaimed):
        return
    with services.engine.begin() as connection:
        changes = intent_states(connection, job_id, agent_id, "reconcile")
        if changes and changes[-1].open:
            park(connection, held, 60, "waiting for the roster writer")
            return
        error = changes[-1].error if changes else None
        status = "succeeded" if error is None else "failed"
        finish(connection, held, status, reason=error, warnings=[], files={})


def _sync_heartbeats(services: Services, task_id: str, kwargs: Mapping[str, Any]) -> None:
    messages: list[Message] = []
    with services.engine.begin() as connection:
        job = accept(connection, "sync_heartbeats", task_id, (), kwargs)
        if isinstance(job, Queued):
            try:
                messages = heartbeat_job.begin(connection, job.job_id, cast(Any, job.request))
            except BadRequestError as error:
                refuse(connection, job.job_id, "sync_heartbeats", str(error), kwargs)
    services.publish(messages)
    if isinstance(job, Started) and job.status == "running":
        heartbeat_job.execute_heartbeats(services, job.job_id)
