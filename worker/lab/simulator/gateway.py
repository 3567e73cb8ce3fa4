"""One boot of a gateway: its parts, and the methods that use more than one of them (gateways.md 3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Protocol

from worker.lab.simulator.agents import Agents
from worker.lab.simulator.config import Config, Written
from worker.lab.simulator.connect_handshake import Grant
from worker.lab.simulator.deletions import RECOVERY, Deletions
from worker.lab.simulator.heartbeats import Heartbeats
from worker.lab.simulator.journal import Journal
from worker.lab.simulator.method import Method, at_once
from worker.lab.simulator.pairing import Pairing
from worker.lab.simulator.params import Kind, Shape
from worker.lab.simulator.rate_limit import RateLimit
from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.release import ADMIN, Release
from worker.lab.simulator.roster import MAIN
from worker.lab.simulator.sessions import Run, Sessions, agent_of
from worker.lab.simulator.settings_schema import looked_up, models_of, whole_schema
from worker.lab.simulator.timings import Timings
from worker.lab.simulator.workspaces import Workspaces

_RECOVERY_S = 0.2
"""Seconds from the answer that announces a recovery restart to the restart."""


class Host(Protocol):
    """What the methods need from the server that runs them."""

    async def broadcast(self, event: str, payload: JSON) -> None: ...

    def restart_after_patch(self, delay_ms: int | None) -> JSON:
        """Plan the restart after a patch; return the ``restart`` object of its answer."""
        ...

    def restart_for_channels(self) -> None:
        """Plan the restart that the config watcher makes when ``channels`` change."""
        ...

    def restart_in(self, delay_s: float, down_s: float | None) -> None:
        """Restart after a delay. ``down_s`` None: down for as long as the timings say."""
        ...

    def spawn(self, work: Coroutine[None, None, None]) -> None: ...


class Gateway:
    """One boot of a gateway: its config, workspaces, sessions and jobs, all read from ``state_dir``."""

    def __init__(
        self,
        state_dir: Path,
        release: Release,
        timings: Timings,
        journal: Journal,
        host: Host,
        *,
        token: str,
        reply: str | None,
        environment: Mapping[str, str],
        limit: RateLimit,
        pairing: Pairing,
    ) -> None:
        self.release = release
        self._timings = timings
        self._host = host
        self._limit = limit
        self.workspaces = Workspaces(state_dir, release, timings.file_write_s)
        self.config = Config(
            state_dir / "openclaw.json",
            release,
            timings,
            journal,
            token=token,
            main_workspace=self.workspaces.configured(MAIN, {}),
            environment=environment,
            on_write=self._config_written,
        )
        self.heartbeats = Heartbeats(state_dir)
        self.sessions = Sessions(
            state_dir, release, reply=reply, broadcast=host.broadcast, settings=self.session_settings
        )
        self._deletions = Deletions(state_dir, kept=release.fences_deleted)
        agents = Agents(state_dir, release, self.config, self.workspaces, self._deletions)
        self._methods = self._own_methods(pairing) | agents.methods()
        if release.heartbeat_scratch:
            self._fit_heartbeats()

    async def call(self, method: str, params: JSON, grant: Grant, caller: str) -> JSON:
        """The payload for one request. ``caller``: the name by which rate limits count. Raises `Refusal`."""
        scope = self.release.scope_for(method)
        if not grant.allows(scope):
            raise self._missing(scope or ADMIN)
        known = self._methods.get(method)
        if known is None or method not in self.release.methods:
            raise Refusal(f"unknown method: {method}")
        if method == "config.patch":
            self._limit.count(caller)
        known.shape.check(method, params, no_fewer="must not" if self.release.explains_errors else "must NOT")
        return await known.run(params)

    def _missing(self, scope: str) -> Refusal:
        message = f"missing scope: {scope}"
        if not self.release.explains_errors:
            return Refusal(message)
        details = {"code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope]}
        return Refusal(message, code="FORBIDDEN", details=details)

    def _own_methods(self, pairing: Pairing) -> dict[str, Method]:
        session: dict[str, Kind] = {"key": "text"}
        job: dict[str, Kind] = {"jobId": "text"}
        return {
            "health": at_once(Shape(strict=False), self._health),
            "config.get": at_once(Shape(), lambda _: self.config.get()),
            "config.schema": at_once(Shape(), lambda _: whole_schema(self.release)),
            "config.schema.lookup": at_once(
                Shape({"path": "text"}), lambda p: looked_up(self.release, p["path"])
            ),
            "models.list": at_once(
                Shape({}, {"agentId": "text", "view": "text"} if self.release.roster_is_map else {}),
                self._models,
            ),
            "config.patch": Method(_PATCH if self.release.roster_is_map else _OLD_PATCH, self._patch),
            "sessions.list": at_once(Shape(strict=False), lambda _: self.sessions.listing()),
            "sessions.patch": at_once(_SESSION_PATCH, self._session_patch),
            "sessions.reset": at_once(
                Shape(session, {"reason": "string"}), lambda p: self.sessions.reset(p["key"])
            ),
            "sessions.delete": at_once(
                Shape(session, {"deleteTranscript": "boolean"}), lambda p: self.sessions.delete(p["key"])
            ),
            "chat.history": at_once(
                Shape({"sessionKey": "text"}, {"limit": "integer"}),
                lambda p: self.sessions.history(p["sessionKey"], p.get("limit")),
            ),
            "chat.send": at_once(_CHAT, self._send),
            "cron.list": at_once(
                _CRON_LIST,
                self._cron_list,
            ),
            "cron.scratch.get": at_once(Shape(job), lambda p: self.heartbeats.scratch(p["jobId"])),
            "cron.scratch.set": at_once(
                Shape({**job, "content": "any"}, {"expectedRevision": "integer"}),
                lambda p: self.heartbeats.set_scratch(p["jobId"], p["content"], p.get("expectedRevision")),
            ),
            "device.pair.list": at_once(Shape(), lambda _: pairing.requests()),
            "device.pair.approve": at_once(
                Shape({"requestId": "text"}), lambda p: pairing.approve(p["requestId"])
            ),
        }

    def session_settings(self) -> JSON:
        """The current ``session`` section of the config."""
        section: JSON = self.config.effective().get("session", {})
        return section

    def _health(self, _: JSON) -> JSON:
        agents = self.config.agents()
        return {
            "ok": True,
            "ts": int(time.time() * 1000),
            "durationMs": 0,
            "channels": {},
            "heartbeatSeconds": 1800,
            "defaultAgentId": self._default_agent(),
            "agents": [{"agentId": agent, "isDefault": agent == self._default_agent()} for agent in agents],
        }

    async def _patch(self, params: JSON) -> JSON:
        before = self.config.agents()
        answer = await self.config.patch(
            params["raw"], params.get("baseHash"), params.get("replacePaths", ())
        )
        after = self.config.agents()
        if any(after.get(agent_id) != before.get(agent_id) for agent_id in self._deletions.fenced()):
            self._host.restart_in(_RECOVERY_S, None)
            raise Refusal(RECOVERY, code="UNAVAILABLE")
        if self.release.restarts_on_patch:
            answer["restart"] = self._host.restart_after_patch(params.get("restartDelayMs"))
        return answer

    def _models(self, params: JSON) -> JSON:
        agent_id, agents = params.get("agentId"), self.config.agents()
        return models_of(self.config.effective(), self.release, agent_id, len(agents))

    def _session_patch(self, params: JSON) -> JSON:
        changes = {name: value for name, value in params.items() if name != "key"}
        return self.sessions.patch(params["key"], changes)

    def _send(self, params: JSON) -> JSON:
        if not params["message"] and not params.get("attachments"):
            raise Refusal("message or attachment required")
        key, run_id = params["sessionKey"], params["idempotencyKey"]
        agent_id, agents = agent_of(key), self.config.agents()
        if agent_id not in agents and self.release.roster_is_map:
            raise Refusal(f'Agent "{agent_id}" no longer exists in configuration')
        is_default = agent_id == self._default_agent()
        answer, run = self.sessions.send(key, params["message"], run_id, is_default_agent=is_default)
        if run is not None:
            self.workspaces.begin_run(agent_id, agents.get(agent_id, {}))
            self._host.spawn(self._run(run_id, run, is_default=is_default))
        return answer

    async def _run(self, run_id: str, run: Run, *, is_default: bool) -> None:
        await asyncio.sleep(self._timings.history_s)
        self.sessions.begin(run_id, run, is_default_agent=is_default)
        await asyncio.sleep(self._timings.run_s)
        await self.sessions.finish(run_id, run, is_default_agent=is_default)

    def _cron_list(self, params: JSON) -> JSON:
        if not self.release.heartbeat_scratch:
            return {"jobs": []}
        return self.heartbeats.jobs(params.get("agentId"), params.get("offset", 0), params.get("limit"))

    def _default_agent(self) -> str:
        agents = self.config.agents()
        return MAIN if MAIN in agents else next(iter(agents), MAIN)

    async def _config_written(self, written: Written) -> None:
        if self.release.restarts_on_patch:
            if any(path.startswith("channels") for path in written.changed):
                self._host.restart_for_channels()
            return
        await self._host.broadcast("config.changed", {"path": str(self.config.path)})
        self._host.spawn(self._fit_heartbeats_later())

    async def _fit_heartbeats_later(self) -> None:
        await asyncio.sleep(self._timings.heartbeat_job_s)
        self._fit_heartbeats()

    def _fit_heartbeats(self) -> None:
        self.heartbeats.reconcile(self.config.agents(), fenced=self._deletions.fenced())


_PATCHED: dict[str, Kind] = {
    "baseHash": "text",
    "sessionKey": "string",
    "note": "string",
    "restartDelayMs": "integer",
}
_OLD_PATCH = Shape({"raw": "text"}, _PATCHED)
_PATCH = Shape({"raw": "text"}, {**_PATCHED, "replacePaths": "array"})
_CRON_LIST = Shape(
    {},
    {
        "includeDisabled": "boolean",
        "agentId": "text",
        "query": "string",
        "compact": "boolean",
        "includeDeliveryPreviews": "boolean",
        "limit": "integer",
        "offset": "integer",
    },
)
_SESSION_PATCH = Shape(
    {"key": "text"},
    {"label": "any", "model": "any", "thinkingLevel": "any", "verboseLevel": "any", "sendPolicy": "any"},
)
_CHAT = Shape(
    {"sessionKey": "text", "message": "string", "idempotencyKey": "text"},
    {"deliver": "boolean", "thinking": "string", "attachments": "array", "timeoutMs": "integer"},
)
