"""The floor: a bare client with the fewest calls that keep the same promises, pipelined over one connection.

It lists an agent's files before it writes any, reads the token back, wakes each agent once, and hashes where
the product does. It keeps no rows, retries nothing, and is alone with its gateway.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from tests.benchmarks.bench import Bench
from tests.benchmarks.way import Templates
from worker.gateway.connection import Call, GatewayConnection
from worker.gateway.device import DeviceKey
from worker.gateway.dialect import Dialect
from worker.gateway.errors import GatewayError
from worker.gateway.roster_plan import RosterEntry, plan_roster
from worker.workspace.context import AgentFacts, BoardFacts, GatewayFacts, UserFacts
from worker.workspace.identity import openclaw_id, session_key, workspace_path
from worker.workspace.plan import BOOTSTRAP, MEMORY_FILES
from worker.workspace.rendering import Layout, RenderedWorkspace, render_workspace
from worker.workspace.tokens import find_token, hash_token, mint_token, with_token

_SET_HASH = text("UPDATE agents SET agent_token_hash = :hash, status = 'online' WHERE id = :id")
_MOST_TRIES = 100


class Floor:
    """A `tests.benchmarks.way.Way`."""

    def __init__(self, bench: Bench, templates: Templates) -> None:
        self._bench = bench
        self._templates = templates
        self._device = DeviceKey.generate()
        self._open()
        hello = self.connection.hello
        self.dialect = Dialect.from_hello(hello.server_version, hello.methods)
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._agents: list[UUID] = []
        self._delivered: dict[UUID, RenderedWorkspace] = {}
        self._tokens: dict[UUID, str] = {}
        self._scratches: dict[UUID, str] = {}

    def provision(self, agents: list[UUID]) -> None:
        """One patch, pipelined files, one read back and one wake each, one statement for the hashes."""
        self._require_open()
        self._agents = agents
        self._delivered = {each: self.render(each) for each in agents}
        minted = self._pool.map(lambda _: _minted(), agents)
        self._patch([self.entry(each) for each in agents])
        keyed = dict(zip(agents, minted, strict=True))
        self._tokens = {each: token for each, (token, _) in keyed.items()}
        self.all([self._listing(each) for each in agents])
        self._write({each: tuple(self._delivered[each]) for each in agents})
        self._read_back()
        self.all([self.label(each) for each in agents])
        self.all([self.wake(each) for each in agents])
        self.store({each: digest for each, (_, digest) in keyed.items()})

    def sync(self) -> None:
        """A look at the config and at each workspace, and the files whose renderings have changed."""
        self._require_open()
        self.connection.call("config.get")
        self._update()

    def rotate(self) -> None:
        """A new token for each, read back, and one statement for the hashes."""
        self._require_open()
        keyed = dict(zip(self._agents, self._pool.map(lambda _: _minted(), self._agents), strict=True))
        self.connection.call("config.get")
        self.all([self._listing(each) for each in self._agents])
        self.all([self._carrier(each) for each in self._agents])
        self._tokens = {each: token for each, (token, _) in keyed.items()}
        self._write(dict.fromkeys(self._agents, (self.dialect.credentials_in,)))
        self._read_back()
        self.store({each: digest for each, (_, digest) in keyed.items()})

    def singles(self) -> None:
        """The same as a sync: it makes no difference to a client how it was asked."""
        self.sync()

    def delete(self) -> None:
        """One call for each agent, one after another: a gateway takes one at a time."""
        self._require_open()
        for each in self._agents:
            self.delete_one(self.connection, each)
            if self.connection.closed is not None:
                self._open()

    def delete_one(self, connection: GatewayConnection, agent_id: UUID) -> None:
        """Take one agent and its files off the gateway."""
        call = Call("agents.delete", {"agentId": self.entry(agent_id).openclaw_id, "deleteFiles": True})
        for _ in range(_MOST_TRIES):
            try:
                connection.call(call.method, call.params, deadline_s=60)
                return
            except GatewayError as error:
                if "not found" in str(error) or "unknown agent" in str(error):
                    return
                time.sleep(getattr(error, "retry_after_s", None) or 0.1)
                if connection.closed is not None:
                    self._open()
                    connection = self.connection
        raise SystemExit("agents.delete did not get through")

    def close(self) -> None:
        """End the connection."""
        self.connection.close()
        self._pool.shutdown()

    def render(self, agent_id: UUID) -> RenderedWorkspace:
        """The agent's workspace, as the templates are now."""
        fleet, bench = self._bench.fleet, self._bench
        return render_workspace(
            AgentFacts(agent_id, _name(agent_id), False),
            BoardFacts(fleet.board_id, "Launch", "goal", "Ship it.", goal_confirmed=True),
            GatewayFacts(fleet.gateway_id, "workshop", bench.address.url, str(bench.folder / "agents")),
            UserFacts("Ada Lovelace", "Ada", timezone="Europe/London"),
            bench.settings["BASE_URL"],
            Layout(self.dialect.files, self.dialect.credentials_in, self.dialect.heartbeat_in),
            self._templates.folder,
        )

    def entry(self, agent_id: UUID) -> RosterEntry:
        """The agent's roster entry."""
        root, key = str(self._bench.folder / "agents"), openclaw_id(self._session(agent_id))
        return RosterEntry(key, _name(agent_id), workspace_path(root, key, gateway="workshop"))

    def label(self, agent_id: UUID) -> Call:
        """The call that labels the agent's session."""
        return Call("sessions.patch", {"key": self._session(agent_id), "label": _name(agent_id)})

    def wake(self, agent_id: UUID) -> Call:
        """The call that wakes the agent."""
        message = f"Hello {_name(agent_id)}. Your workspace was just provisioned: start now."
        key = {"sessionKey": self._session(agent_id), "idempotencyKey": str(uuid4())}
        return Call("chat.send", {**key, "message": message, "deliver": True})

    def all(self, calls: Sequence[Call]) -> list[dict[str, Any]]:
        """The answers to all of the calls, pipelined; what a gateway is too busy for is asked again."""
        answers: dict[int, dict[str, Any]] = {}
        for _ in range(_MOST_TRIES):
            left = [n for n in range(len(calls)) if n not in answers]
            found = self.connection.call_many([calls[n] for n in left], deadline_s=60)
            answers |= {n: one for n, one in zip(left, found, strict=True) if isinstance(one, dict)}
            if len(answers) == len(calls):
                return [answers[n] for n in range(len(calls))]
            last = next(one for one in found if not isinstance(one, dict))
            time.sleep(0.1)
            if self.connection.closed is not None:
                self._open()
        raise SystemExit(f"{calls[0].method} did not get through: {last}")

    def _update(self) -> None:
        listed = [call for each in self._agents for call in (self._listing(each), *self._scratch_of(each))]
        self.all(listed)
        now = {each: self.render(each) for each in self._agents}
        changed = {
            each: tuple(
                name
                for name, file in now[each].items()
                if file.source_sha256 != self._delivered[each][name].source_sha256
                and name not in MEMORY_FILES
                and name != BOOTSTRAP
            )
            for each in self._agents
        }
        self._delivered = now
        carrier = self.dialect.credentials_in
        keyed = [each for each in self._agents if carrier in changed[each]]
        if keyed:
            for each, answer in zip(keyed, self.all([self._carrier(one) for one in keyed]), strict=True):
                found = find_token(answer["file"]["content"], section=carrier == "AGENTS.md")
                assert found == self._tokens[each]
        if any(changed.values()):
            self._write(changed)
        if keyed:
            self.all([self._carrier(each) for each in keyed])

    def _write(self, changed: Mapping[UUID, Sequence[str]]) -> None:
        calls = []
        for each, names in changed.items():
            agent = self.entry(each).openclaw_id
            for name in names:
                file = self._delivered[each][name]
                content = with_token(file.text, self._tokens[each])
                if file.kind == "file":
                    calls.append(
                        Call("agents.files.set", {"agentId": agent, "name": name, "content": content})
                    )
        self.all(calls)
        texts = {
            each: file.text
            for each, names in changed.items()
            for file in self._delivered[each].values()
            if file.kind == "scratch" and file.name in names
        }
        if texts:
            self._find_scratches()
            self.all(
                [
                    Call("cron.scratch.set", {"jobId": self._scratches[each], "content": content})
                    for each, content in texts.items()
                ]
            )

    def _find_scratches(self) -> None:
        """The heartbeat automations; they come into being some seconds after the patch."""
        wanted = {f"heartbeat:{self.entry(each).openclaw_id}": each for each in self._agents}
        while len(self._scratches.keys() & set(self._agents)) < len(self._agents):
            jobs = self.connection.call("cron.list", {"includeDisabled": True})["jobs"]
            self._scratches = {
                wanted[job["declarationKey"]]: job["id"]
                for job in jobs
                if job.get("declarationKey") in wanted
            }

    def _listing(self, agent_id: UUID) -> Call:
        params = {"agentId": self.entry(agent_id).openclaw_id}
        listed = self.dialect.lists_workspace and agent_id in self._scratches
        return Call("agents.workspace.list" if listed else "agents.files.list", params)

    def _scratch_of(self, agent_id: UUID) -> list[Call]:
        found = self._scratches.get(agent_id)
        return [Call("cron.scratch.get", {"jobId": found})] if found else []

    def _carrier(self, agent_id: UUID) -> Call:
        key = self.entry(agent_id).openclaw_id
        return Call("agents.files.get", {"agentId": key, "name": self.dialect.credentials_in})

    def _read_back(self) -> None:
        self.all([self._carrier(each) for each in self._agents])

    def _patch(self, entries: list[RosterEntry]) -> None:
        config = self.connection.call("config.get")
        plan = plan_roster(self.dialect, config["parsed"], entries)
        patch = {"raw": json.dumps(plan.document), "baseHash": config["hash"], "restartDelayMs": 0}
        answer = self.connection.call("config.patch", patch, deadline_s=60)
        if answer.get("restart"):
            self.connection.wait_closed(40)
        if self.connection.closed is not None:
            self._open()

    def store(self, hashes: dict[UUID, str]) -> None:
        """Store the hashes of new tokens, in one statement."""
        with self._bench.engine.begin() as database:
            database.execute(_SET_HASH, [{"id": each, "hash": digest} for each, digest in hashes.items()])

    def _require_open(self) -> None:
        """Open another connection if the other ways have made the gateway restart."""
        try:
            self.connection.call("health")
        except GatewayError:
            self.connection.wait_closed(5)
            self._open()

    def _open(self) -> None:
        while True:
            try:
                self.connection = GatewayConnection.open(self._bench.address, self._device)
                return
            except GatewayError:
                time.sleep(0.02)

    def _session(self, agent_id: UUID) -> str:
        return session_key(agent_id, self._bench.fleet.board_id, False)


def _name(agent_id: UUID) -> str:
    return f"Agent {agent_id.hex[:6]}"


def _minted() -> tuple[str, str]:
    token = mint_token()
    return token, hash_token(token)
