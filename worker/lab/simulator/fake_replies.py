"""Makes up the answer to a request that is not carried out."""

from __future__ import annotations

import hashlib
import time

from worker.lab.simulator.connect_handshake import Grant
from worker.lab.simulator.gateway import Gateway
from worker.lab.simulator.refusal import JSON


async def fake_reply(gateway: Gateway, method: str, params: JSON, grant: Grant, caller: str) -> JSON:
    """The payload of a success, without carrying the request out.

    Reads are carried out all the same, and on the older releases a patch still restarts the gateway.
    """
    if method == "config.patch":
        return await _patched(gateway, params, grant, caller)
    if method == "agents.files.set":
        return _file_set(gateway, params)
    if method in ("agents.create", "agents.update", "agents.delete"):
        name = params.get("agentId") or gateway.config.roster.id_from(str(params.get("name", "")))
        return {"ok": True, **params, "agentId": name, "removedBindings": 0}
    if method in ("sessions.patch", "sessions.reset"):
        entry = {"sessionId": "none", "updatedAt": _now_ms(), "label": params.get("label")}
        return {"ok": True, "key": params.get("key"), "entry": entry, "resolved": {}}
    if method == "sessions.delete":
        return {"ok": True, "key": params.get("key"), "deleted": True, "archived": []}
    if method == "chat.send":
        return {"runId": params.get("idempotencyKey"), "status": "started"}
    if method == "cron.scratch.set":
        scratch = {"content": params.get("content"), "revision": 1, "updatedAtMs": _now_ms()}
        return {"ok": True, "scratch": scratch, "currentRevision": 1, "maxBytes": 262_144}
    return await gateway.call(method, params, grant, caller)


async def _patched(gateway: Gateway, params: JSON, grant: Grant, caller: str) -> JSON:
    if gateway.release.restarts_on_patch:
        return await gateway.call("config.patch", {**params, "raw": "{}"}, grant, caller)
    held = gateway.config.get()
    return {
        "ok": True,
        "changedPaths": [],
        **{name: held[name] for name in ("path", "config", "hash")},
    }


def _file_set(gateway: Gateway, params: JSON) -> JSON:
    agent, name, content = (str(params.get(key, "")) for key in ("agentId", "name", "content"))
    data = content.encode()
    workspace = gateway.workspaces.configured(agent, gateway.config.agents().get(agent, {}))
    file: JSON = {"name": name, "path": f"{workspace}/{name}", "missing": False, "size": len(data)}
    file |= {"updatedAtMs": _now_ms(), "content": content}
    if gateway.release.hashes_files:
        file["hash"] = hashlib.sha256(data).hexdigest()
    return {"ok": True, "agentId": agent, "workspace": workspace, "file": file}


def _now_ms() -> int:
    return int(time.time() * 1000)
