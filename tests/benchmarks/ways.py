"""Three ways to bring the same agents to life: ours, the least that can be done, and one after another."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from celery import Celery
from sqlalchemy import text

from tests.benchmarks.bench import Bench
from tests.worker_process import WorkerProcess
from worker.gateway.connection import Call, GatewayConnection
from worker.gateway.device import DeviceKey
from worker.gateway.dialect import Dialect
from worker.gateway.errors import AgentExists, ConnectionLost, GatewayError, RateLimited
from worker.gateway.roster_plan import RosterEntry, plan_roster
from worker.workspace.context import AgentFacts, BoardFacts, GatewayFacts, UserFacts
from worker.workspace.identity import openclaw_id, session_key, workspace_path
from worker.workspace.rendering import Layout, RenderedWorkspace, render_workspace
from worker.workspace.tokens import ROUNDS, hash_token, mint_token, with_token

_SET_HASH = text("UPDATE agents SET agent_token_hash = :hash, status = 'online' WHERE id = :id")
_ENDED = text("SELECT count(*) FILTER (WHERE status = 'succeeded'), count(*) FROM provisioner.jobs")


@dataclass(frozen=True)
class Agent:
    """One agent as the gateway is to know it."""

    key: str
    session: str
    entry: RosterEntry
    workspace: RenderedWorkspace


def provisioner(bench: Bench, *, workers: int = 2) -> float:
    """Through our worker processes, asked for by ``send_task``: from the first request to the last end. The
    workers have been up for a while, as services are, and have made tokens ahead meanwhile."""
    processes = [
        WorkerProcess(
            bench.folder / f"worker-{n}.log",
            bench.settings,
            name=f"b{n}",
            hash_rounds=ROUNDS,
            trace=bench.trace,
        )
        for n in range(workers)
    ]
    app = Celery(broker=bench.settings["REDIS_URL"])
    app.conf.task_default_queue = "provisioning"
    try:
        time.sleep(bench.idle_s)
        began = time.monotonic()
        for agent_id in bench.agents:
            kwargs = {"agent_id": str(agent_id)}
            app.send_task("tasks.provision_agent", kwargs=kwargs, task_id=str(uuid4()), ignore_result=True)
        while True:
            with bench.engine.connect() as connection:
                ended, asked = connection.execute(_ENDED).one()
            if ended == len(bench.agents):
                return time.monotonic() - began
            if time.monotonic() - began > 300:
                raise SystemExit(
                    f"only {ended} of {asked} jobs succeeded within 300 s: {processes[0].log()[-3000:]}"
                )
            time.sleep(0.02)
    finally:
        app.close()
        for process in processes:
            process.stop()


def bare_client(bench: Bench) -> float:
    """One patch, pipelined files, one read back, pipelined wakes, one UPDATE: the least that leaves the same
    behind. Rendering and hashing belong to it, on all cores: without them there is no agent."""
    began = time.monotonic()
    device = DeviceKey.generate()
    connection = GatewayConnection.open(bench.address, device)
    dialect = Dialect.from_hello(connection.hello.server_version, connection.hello.methods)
    agents = [_agent(bench, dialect, n) for n in range(len(bench.agents))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        keyed = pool.map(_minted, agents)
        config = connection.call("config.get")
        plan = plan_roster(dialect, config["parsed"], [agent.entry for agent in agents])
        patch = {"raw": json.dumps(plan.document), "baseHash": config["hash"], "restartDelayMs": 0}
        answer = connection.call("config.patch", patch, deadline_s=60)
        if answer.get("restart"):
            connection.wait_closed(40)
        if connection.closed is not None:
            connection = _back(bench, device)
        tokens = dict(zip((agent.key for agent in agents), keyed, strict=True))
    _all(connection, [call for agent in agents for call in _files(agent, tokens[agent.key][0])])
    if dialect.has_scratch:
        _all(connection, _scratches(connection, agents))
    carrier = dialect.credentials_in
    _all(connection, [Call("agents.files.get", {"agentId": a.key, "name": carrier}) for a in agents])
    _all(connection, [Call("sessions.patch", {"key": a.session, "label": a.entry.name}) for a in agents])
    _all(connection, [Call("chat.send", _wake(agent)) for agent in agents])
    hashes = [
        {"id": agent_id, "hash": tokens[agent.key][1]}
        for agent_id, agent in zip(bench.agents, agents, strict=True)
    ]
    with bench.engine.begin() as database:
        database.execute(_SET_HASH, hashes)
    connection.close()
    return time.monotonic() - began


def one_after_another(bench: Bench) -> float:
    """Agent by agent, call by call, each over a socket of its own, as inside a web request."""
    began = time.monotonic()
    device = DeviceKey.generate()

    def call(method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        last: Exception | None = None
        for _ in range(40):
            try:
                connection = GatewayConnection.open(bench.address, device)
                try:
                    return connection.call(method, params, deadline_s=60)
                finally:
                    connection.close()
            except ConnectionLost:
                if method == "config.patch":
                    return {}
            except AgentExists:
                return {}
            except RateLimited as error:
                time.sleep(error.retry_after_s or 60)
            except GatewayError as error:
                last = error
                time.sleep(0.25)
        raise SystemExit(f"{method} did not get through in 40 tries: {last}")

    hello = GatewayConnection.open(bench.address, device)
    dialect = Dialect.from_hello(hello.hello.server_version, hello.hello.methods)
    hello.close()
    for n, agent_id in enumerate(bench.agents):
        agent = _agent(bench, dialect, n)
        token, digest = _minted(agent)
        call("agents.create", {"name": agent.key, "workspace": agent.entry.workspace})
        config = call("config.get")
        plan = plan_roster(dialect, config["parsed"], [agent.entry])
        if plan.document is not None:
            call("config.patch", {"raw": json.dumps(plan.document), "baseHash": config["hash"]})
        for step in _files(agent, token):
            call(step.method, dict(step.params or {}))
        if dialect.has_scratch:
            connection = GatewayConnection.open(bench.address, device)
            [scratch] = _scratches(connection, [agent])
            connection.close()
            call(scratch.method, dict(scratch.params or {}))
        call("agents.files.get", {"agentId": agent.key, "name": dialect.credentials_in})
        call("sessions.patch", {"key": agent.session, "label": agent.entry.name})
        call("chat.send", _wake(agent))
        with bench.engine.begin() as database:
            database.execute(_SET_HASH, {"id": agent_id, "hash": digest})
    return time.monotonic() - began


def _agent(bench: Bench, dialect: Dialect, n: int) -> Agent:
    agent_id, fleet, root = bench.agents[n], bench.fleet, str(bench.folder / "agents")
    session = session_key(agent_id, fleet.board_id, False)
    key = openclaw_id(session)
    rendered = render_workspace(
        AgentFacts(agent_id, f"Agent {n}", False),
        BoardFacts(fleet.board_id, "Launch", "goal", "Ship it.", goal_confirmed=True),
        GatewayFacts(fleet.gateway_id, "workshop", bench.address.url, root),
        UserFacts("Ada Lovelace", "Ada", timezone="Europe/London"),
        bench.settings["BASE_URL"],
        Layout(dialect.files, dialect.credentials_in, dialect.heartbeat_in),
    )
    entry = RosterEntry(key, f"Agent {n}", workspace_path(root, key, gateway="workshop"))
    return Agent(key, session, entry, rendered)


def _minted(_: Agent) -> tuple[str, str]:
    token = mint_token()
    return token, hash_token(token)


def _files(agent: Agent, token: str) -> list[Call]:
    return [
        Call(
            "agents.files.set",
            {"agentId": agent.key, "name": file.name, "content": with_token(file.text, token)},
        )
        for file in agent.workspace.values()
        if file.kind == "file"
    ]


def _scratches(connection: GatewayConnection, agents: list[Agent]) -> list[Call]:
    """The heartbeat texts; their automations come into being some seconds after the patch."""
    wanted = {f"heartbeat:{agent.key}": agent for agent in agents}
    while True:
        jobs = connection.call("cron.list", {"includeDisabled": True})["jobs"]
        found = {job["declarationKey"]: job["id"] for job in jobs if job.get("declarationKey") in wanted}
        if len(found) == len(agents):
            break
        time.sleep(0.1)
    return [
        Call("cron.scratch.set", {"jobId": job_id, "content": file.text})
        for key, job_id in found.items()
        for file in wanted[key].workspace.values()
        if file.kind == "scratch"
    ]


def _wake(agent: Agent) -> dict[str, Any]:
    message = f"Hello {agent.entry.name}. Your workspace was just provisioned: start now."
    return {"sessionKey": agent.session, "message": message, "deliver": True, "idempotencyKey": str(uuid4())}


def _all(connection: GatewayConnection, calls: list[Call]) -> None:
    """All of the calls, pipelined; those that a gateway is too busy for, or does not know yet, again."""
    for _ in range(60):
        answers = connection.call_many(calls, deadline_s=60)
        calls = [
            call for call, answer in zip(calls, answers, strict=True) if isinstance(answer, GatewayError)
        ]
        if not calls:
            return
        time.sleep(0.1)
    raise SystemExit(f"{len(calls)} calls of {calls[0].method} were refused 60 times over")


def _back(bench: Bench, device: DeviceKey) -> GatewayConnection:
    while True:
        try:
            return GatewayConnection.open(bench.address, device)
        except GatewayError:
            time.sleep(0.02)
