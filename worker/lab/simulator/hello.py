"""The hello that a gateway sends to an accepted client (gateways.md 1)."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from worker.lab.simulator.connect_handshake import Grant
from worker.lab.simulator.refusal import JSON
from worker.lab.simulator.release import Release

_EVENTS = [
    "connect.challenge",
    "agent",
    "chat",
    "presence",
    "tick",
    "shutdown",
    "health",
    "heartbeat",
    "cron",
]


def hello(
    release: Release,
    grant: Grant,
    *,
    connection: str,
    boot_id: str,
    state_dir: Path,
    tick_s: float,
    session_scope: str,
) -> JSON:
    """The payload of an accepted ``connect``."""
    server: JSON = {"version": release.reported_version, "connId": connection}
    features: JSON = {"methods": sorted(release.methods), "events": _EVENTS}
    if release.explains_errors:
        server["bootId"] = boot_id
        features["capabilities"] = []
    answer: JSON = {
        "type": "hello-ok",
        "protocol": release.protocol,
        "server": server,
        "features": features,
        "snapshot": {
            "configPath": str(state_dir / "openclaw.json"),
            "stateDir": str(state_dir),
            "sessionDefaults": {
                "defaultAgentId": "main",
                "mainKey": "main",
                "mainSessionKey": "global" if session_scope == "global" else "agent:main:main",
                "scope": session_scope,
            },
        },
        "policy": {
            "maxPayload": release.max_payload,
            "maxBufferedBytes": release.max_buffered,
            "tickIntervalMs": round(tick_s * 1000),
        },
    }
    auth = _auth(release, grant)
    return answer if auth is None else {**answer, "auth": auth}


def _auth(release: Release, grant: Grant) -> JSON | None:
    auth: JSON = {"role": grant.role, "scopes": list(grant.scopes)}
    issued = {"deviceToken": uuid.uuid4().hex, "issuedAtMs": int(time.time() * 1000)}
    if release.shows_auth == "always":
        auth["method"] = "token"
        return auth | issued if grant.device_id is not None and grant.mode != "backend" else auth
    if release.shows_auth == "never" or grant.device_id is None:
        return None
    return {**issued, **auth, "scopes": sorted(grant.scopes)}
