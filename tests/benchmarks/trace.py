"""What a worker process did and when: RPCs, SQL statements, messages and tasks, a JSON line each."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import signals
from sqlalchemy import Engine, event

from worker.gateway.connection import GatewayConnection


@dataclass(frozen=True)
class Operation:
    """One thing done: ``kind`` is rpc, sql, message, task or hash; ``began`` and ``ended`` are seconds on the
    monotonic clock, which all processes of a machine share; ``sent`` is when an RPC's frame had gone out."""

    kind: str
    name: str
    began: float
    ended: float
    thread: str
    sent: float | None = None

    @property
    def took_s(self) -> float:
        """Seconds from its beginning to its end."""
        return self.ended - self.began


def trace_to(path: Path) -> None:
    """Have this process write down all that it does from now on."""
    file = path.open("a", buffering=1)
    lock = threading.Lock()

    def note(
        kind: str, name: str, began: float, sent: float | None = None, ended: float | None = None
    ) -> None:
        operation = [kind, name, began, ended or time.monotonic(), threading.current_thread().name, sent]
        with lock:
            file.write(json.dumps([os.getpid(), *operation]) + "\n")

    _trace_calls(note)
    _trace_statements(note)
    _trace_celery(note)


def deeds_of(path: Path) -> Iterator[Operation]:
    """What was written down, in the order of the ends."""
    for line in path.read_text().splitlines():
        pid, kind, name, began, ended, thread, sent = json.loads(line)
        yield Operation(kind, name, began, ended, f"{pid} {thread}", sent)


def _trace_calls(note: Any) -> None:
    send, settle, end = GatewayConnection._send, GatewayConnection._settle, GatewayConnection._end
    begun: dict[int, tuple[float, float]] = {}

    def sending(self: Any, method: str, params: Any, deadline: float) -> Any:
        began = time.monotonic()
        pending = send(self, method, params, deadline)
        begun[id(pending)] = began, time.monotonic()
        return pending

    def settling(self: Any, response: Any) -> None:
        pending = self._pending.get(response.id)
        settle(self, response)
        if pending is not None:
            began, sent = begun.pop(id(pending), (time.monotonic(), None))
            refused = "" if response.error is None else f" !{response.error.get('code')}"
            note("rpc", pending.method + refused, began, sent)

    def ending(self: Any, close: Any) -> None:
        now = time.monotonic()
        note("rpc", f"(closed {close.code} {close.reason})", now)
        end(self, close)

    GatewayConnection._send, GatewayConnection._settle = sending, settling  # type: ignore[method-assign]
    GatewayConnection._end = ending  # type: ignore[method-assign]


def _trace_statements(note: Any) -> None:
    @event.listens_for(Engine, "before_cursor_execute")
    def before(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        context.traced_from = time.monotonic()

    @event.listens_for(Engine, "after_cursor_execute")
    def after(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        note("sql", re.sub(r"\s+", " ", statement).strip()[:70], context.traced_from)

    @event.listens_for(Engine, "commit")
    def commit(conn: Any) -> None:
        note("sql", "COMMIT", time.monotonic())


def _trace_celery(note: Any) -> None:
    begun: dict[str, float] = {}

    @signals.task_prerun.connect(weak=False)
    def before(task_id: str, **_: Any) -> None:
        begun[task_id] = time.monotonic()

    @signals.task_postrun.connect(weak=False)
    def after(task_id: str, task: Any, state: str, **_: Any) -> None:
        note("task", f"{task.name} {state}", begun.pop(task_id, time.monotonic()))

    @signals.after_task_publish.connect(weak=False)
    def published(sender: str, **_: Any) -> None:
        note("message", sender, time.monotonic())

    from worker.runtime import token_pool

    hash_token = vars(token_pool)["hash_token"]

    def hashing(token: str) -> str:
        began = time.monotonic()
        digest: str = hash_token(token)
        note("hash", "hash_token", began)
        return digest

    vars(token_pool)["hash_token"] = hashing
