"""One agent after another, call by call, each over a socket of its own, and everything rewritten: as inside a
web request."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import UUID

from tests.benchmarks.bench import Bench
from tests.benchmarks.floor import Floor
from tests.benchmarks.way import Templates
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey
from worker.gateway.errors import AgentExists, ConnectionLost, GatewayError, RateLimited
from worker.gateway.roster_plan import plan_roster
from worker.workspace.plan import BOOTSTRAP
from worker.workspace.tokens import hash_token, mint_token, with_token

_MOST_TRIES = 60


class Serial:
    """A `tests.benchmarks.way.Way`."""

    def __init__(self, bench: Bench, templates: Templates) -> None:
        self._bench = bench
        self._device = DeviceKey.generate()
        self._knows = Floor(bench, templates)
        self._tokens: dict[UUID, str] = {}

    def provision(self, agents: list[UUID]) -> None:
        """An entry, all files, a label and a wake for each. Releases that limit config writes to a few a
        minute get one for all, which favours this way by minutes."""
        self._agents = agents
        if not self._knows.dialect.restarts:
            self._patch(agents)
        for each in agents:
            if self._knows.dialect.restarts:
                entry = self._knows.entry(each)
                self._call("agents.create", {"name": entry.openclaw_id, "workspace": entry.workspace})
                self._patch([each])
            self._key(each)
            self._rewrite(each, first=True)
            for call in (self._knows.label(each), self._knows.wake(each)):
                self._call(call.method, dict(call.params or {}))

    def sync(self) -> None:
        """All files of each agent anew."""
        for each in self._agents:
            self._rewrite(each)

    def rotate(self) -> None:
        """The same, with a new token."""
        for each in self._agents:
            self._key(each)
            self._rewrite(each)

    def singles(self) -> None:
        """The same as a sync."""
        self.sync()

    def delete(self) -> None:
        """One call for each."""
        for each in self._agents:
            connection = GatewayConnection.open(self._bench.address, self._device)
            self._knows.delete_one(connection, each)
            connection.close()

    def close(self) -> None:
        """End the connection over which nothing was done."""
        self._knows.close()

    def _patch(self, agents: list[UUID]) -> None:
        config = self._call("config.get")
        entries = [self._knows.entry(each) for each in agents]
        plan = plan_roster(self._knows.dialect, config["parsed"], entries)
        if plan.document is not None:
            self._call("config.patch", {"raw": json.dumps(plan.document), "baseHash": config["hash"]})

    def _key(self, agent_id: UUID) -> None:
        self._tokens[agent_id] = mint_token()
        self._knows.store({agent_id: hash_token(self._tokens[agent_id])})

    def _rewrite(self, agent_id: UUID, *, first: bool = False) -> None:
        key = self._knows.entry(agent_id).openclaw_id
        for file in self._knows.render(agent_id).values():
            content = with_token(file.text, self._tokens[agent_id])
            if file.kind == "file" and (first or file.name != BOOTSTRAP):
                self._call("agents.files.set", {"agentId": key, "name": file.name, "content": content})
            elif file.kind == "scratch":
                self._call("cron.scratch.set", {"jobId": self._automation(key), "content": content})
        self._call("agents.files.get", {"agentId": key, "name": self._knows.dialect.credentials_in})

    def _automation(self, key: str) -> str:
        while True:
            for job in self._call("cron.list", {"includeDisabled": True})["jobs"]:
                if job.get("declarationKey") == f"heartbeat:{key}":
                    return str(job["id"])
            time.sleep(0.1)

    def _call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        last: Exception | None = None
        for _ in range(_MOST_TRIES):
            try:
                connection = GatewayConnection.open(self._bench.address, self._device)
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
        raise SystemExit(f"{method} did not get through in {_MOST_TRIES} tries: {last}")
