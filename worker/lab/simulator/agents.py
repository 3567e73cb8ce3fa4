"""The methods agents.* of a gateway, for its roster and its agents' files (gateways.md 3)."""

from __future__ import annotations

import shutil
from pathlib import Path

from worker.lab.simulator.config import Config
from worker.lab.simulator.deletions import Deletions
from worker.lab.simulator.method import Method, at_once
from worker.lab.simulator.params import Kind, Shape
from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.release import Release
from worker.lab.simulator.roster import MAIN, slug
from worker.lab.simulator.workspaces import Workspaces

_LOST = (
    "Error: agent delete config mutation did not return its target"
    " <- Error: agent delete config mutation did not return its target"
)
_AGENT: dict[str, Kind] = {"agentId": "text"}
_FILE: dict[str, Kind] = {**_AGENT, "name": "text"}


class Agents:
    """The methods that read and write agents and their workspaces."""

    def __init__(
        self, state_dir: Path, release: Release, config: Config, workspaces: Workspaces, deletions: Deletions
    ) -> None:
        self._state_dir = state_dir
        self._release = release
        self._config = config
        self._workspaces = workspaces
        self._deletions = deletions

    def methods(self) -> dict[str, Method]:
        is_map = self._release.roster_is_map
        named: dict[str, Kind] = {"name": "text"}
        placed: dict[str, Kind] = {"workspace": "text"}
        extras: dict[str, Kind] = {"emoji": "string", "avatar": "string"}
        create = (
            Shape(named, {**placed, **extras, "model": "string"}) if is_map else Shape(named | placed, extras)
        )
        content: dict[str, Kind] = {**_FILE, "content": "string"}
        fenced: dict[str, Kind] = {"expectedHash": "sha256"} if self._release.hashes_files else {}
        change: dict[str, Kind] = {**named, **placed, "model": "string", "avatar": "string"}
        return {
            "agents.list": at_once(Shape(), lambda _: self._list()),
            "agents.create": Method(create, self._create),
            "agents.update": Method(Shape(_AGENT, change), self._update),
            "agents.delete": Method(Shape(_AGENT, {"deleteFiles": "boolean"}), self._delete),
            "agents.files.list": at_once(Shape(_AGENT), lambda p: self._workspaces.listing(*self._found(p))),
            "agents.files.get": at_once(
                Shape(_FILE), lambda p: self._workspaces.read(*self._found(p), p["name"])
            ),
            "agents.files.set": Method(
                Shape(content, fenced),
                lambda p: self._workspaces.write(
                    *self._found(p), p["name"], p["content"], p.get("expectedHash")
                ),
            ),
            "agents.workspace.get": at_once(
                Shape({**_AGENT, "path": "text"}),
                lambda p: self._workspaces.shown(*self._found(p), p["path"]),
            ),
            "agents.workspace.list": at_once(
                Shape(_AGENT, {"path": "string", "offset": "integer", "limit": "integer"}),
                lambda p: self._workspaces.browse(
                    *self._found(p), p.get("path", ""), p.get("offset", 0), p.get("limit")
                ),
            ),
        }

    def _found(self, params: JSON) -> tuple[str, JSON]:
        agent_id = slug(params["agentId"])
        entry = self._config.agents().get(agent_id)
        if entry is None:
            raise Refusal(_not_found(agent_id) if self._release.roster_is_map else "unknown agent id")
        return agent_id, entry

    def _list(self) -> JSON:
        agents = self._config.agents()
        shown = [
            {"id": agent_id, **({"name": entry["name"]} if "name" in entry else {})}
            for agent_id, entry in agents.items()
        ]
        default = MAIN if MAIN in agents else next(iter(agents), MAIN)
        return {"defaultId": default, "mainKey": MAIN, "scope": "per-sender", "agents": shown}

    async def _create(self, params: JSON) -> JSON:
        name = params["name"].strip()
        agent_id = self._config.roster.id_from(name)
        self._deletions.claim(agent_id)
        async with self._config.editing() as config:
            if agent_id in self._config.roster.agents(config):
                raise Refusal(f'agent "{agent_id}" already exists')
            entry = {"name": name, "workspace": params.get("workspace")}
            entry["workspace"] = self._workspaces.configured(agent_id, entry)
            entry["agentDir"] = str(self._state_dir / "agents" / agent_id / "agent")
            if self._release.roster_is_map:
                entry["identity"] = {"name": name}
            self._config.roster.add(config, agent_id, entry)
        self._workspaces.furnish(agent_id, entry)
        return {"ok": True, "agentId": agent_id, "name": name, "workspace": entry["workspace"]}

    async def _update(self, params: JSON) -> JSON:
        agent_id = slug(params["agentId"])
        async with self._config.editing() as config:
            entry = self._config.roster.agents(config).get(agent_id)
            if entry is None:
                raise Refusal(_not_found(agent_id))
            changes = {
                name: value for name, value in params.items() if name in ("name", "workspace", "model")
            }
            self._config.roster.add(config, agent_id, {**entry, **changes})
        return {"ok": True, "agentId": agent_id}

    async def _delete(self, params: JSON) -> JSON:
        agent_id = slug(params["agentId"])
        if agent_id == MAIN and not self._release.roster_is_map:
            raise Refusal(f'"{MAIN}" cannot be deleted')
        async with self._config.editing() as config:
            entry = self._config.roster.agents(config).get(agent_id)
            if entry is None:
                raise Refusal(_not_found(agent_id))
            self._config.require_removable(agent_id)
            entries = (config.get("agents") or {}).get("entries") or {agent_id: None}
            as_written = agent_id in entries
            self._config.roster.remove(config, agent_id)
        if self._release.roster_is_map and not as_written:  # the entry is gone all the same (2026.9.6)
            raise Refusal(_LOST, code="UNAVAILABLE")
        self._deletions.note(agent_id)
        files, is_map = params.get("deleteFiles", True), self._release.roster_is_map
        shared = is_map and self._workspaces.is_shared(agent_id, entry, self._config.agents())
        existed = self._workspaces.discard(agent_id, entry, files=files and not shared)
        shutil.rmtree(self._state_dir / "agents" / agent_id, ignore_errors=True)
        answer = {"ok": True, "agentId": agent_id, "removedBindings": 0}
        if not is_map:
            return answer
        gone = [{"path": str(self._state_dir / "agents" / agent_id / "sessions"), "method": "missing"}]
        if not shared:
            path = self._workspaces.configured(agent_id, entry)
            gone.append({"path": path, "method": "trash" if existed else "missing"})
        return answer | {"removed": gone if files else [], "failed": []}


def _not_found(agent_id: str) -> str:
    return f'agent "{agent_id}" not found'
