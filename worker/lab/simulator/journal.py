"""The requests and actions of the simulated gateway, for tests to count; it holds no secrets."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_NAMES = ("agentId", "name", "key", "sessionKey", "idempotencyKey", "jobId", "id")


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``at``: Unix time in seconds; ``names``: the ids in its parameters.

    ``ok``: what was answered, or would have been; ``fault``: the name of the fault that happened to it.

    Contents, configs and messages are left out, so the journal can be shown and stored.
    """

    method: str
    at: float
    connection: str
    boot: int
    names: dict[str, str]
    ok: bool
    code: str | None = None
    message: str | None = None
    fault: str | None = None


class Journal:
    """Calls, config writes and restarts since the simulator was created. Thread-safe."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._path = path
        self.config_writes = 0
        self.restarts = 0

    @property
    def calls(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def record(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)
        self._append({"event": "call", **asdict(call)})

    def config_written(self, at: float) -> None:
        self.config_writes += 1
        self._append({"event": "config-write", "at": at})

    def restarted(self, at: float) -> None:
        self.restarts += 1
        self._append({"event": "restart", "at": at})

    def fault_struck(self, at: float, kind: str, method: str | None) -> None:
        self._append({"event": "fault", "at": at, "kind": kind, "method": method})

    def _append(self, line: dict[str, Any]) -> None:
        if self._path is not None:
            with self._lock, self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def names_in(params: dict[str, Any]) -> dict[str, str]:
    """The parameters that say which agent, file or session a call is about."""
    return {name: params[name] for name in _NAMES if isinstance(params.get(name), str)}
