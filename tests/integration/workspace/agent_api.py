"""A loopback server that implements Mission Control's agent API (interfaces.md 7) and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import UUID

Body = Mapping[str, Any]
STATUSES = {"inbox", "in_progress", "review", "done"}
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Call:
    """One request as it arrived. ``route``: the known call that it matches."""

    route: str
    path: str
    body: Any


@dataclass
class AgentApi:
    """What the server received, and every objection to it."""

    url: str
    token: str
    calls: list[Call] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def agent_api(token: str) -> Iterator[AgentApi]:
    """Serve on a free port until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    api = AgentApi(f"http://127.0.0.1:{server.server_port}", token)
    server.api = api  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _uuid(value: Any) -> bool:
    try:
        return bool(str(UUID(value)) == value)
    except (ValueError, TypeError, AttributeError):
        return False


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _heartbeat(body: Body) -> bool:
    board = body["board_id"]
    return (
        _text(body["name"])
        and (board is None or _uuid(board))
        and body.keys() <= {"name", "board_id", "status"}
    )


def _task(body: Body) -> bool:
    return _text(body["title"]) and _text(body["description"]) and _uuid(body["assigned_agent_id"])


def _move(body: Body) -> bool:
    return body["status"] in STATUSES and body.keys() <= {"status", "assigned_agent_id"}


def _memory(body: Body) -> bool:
    return (
        _text(body["content"]) and all(map(_text, body["tags"])) and _text(body["source"]) and len(body) == 3
    )


def _approval(body: Body) -> bool:
    return (
        _text(body["action_type"])
        and _uuid(body["task_id"])
        and isinstance(body["payload"], dict)
        and 0 <= body["confidence"] <= 100
        and all(isinstance(score, int) for score in body["rubric_scores"].values())
        and len(body) == 5
    )


def _agent(body: Body) -> bool:
    return _text(body["name"]) and _uuid(body["board_id"]) and isinstance(body["identity_profile"], dict)


def _only(*names: str) -> Callable[[Body], bool]:
    return lambda body: body.keys() == set(names) and all(_text(body[name]) for name in names)


_BOARD = "/api/v1/agent/boards/{board}"
ROUTES: Mapping[str, Callable[[Body], bool] | None] = {
    "GET /healthz": None,
    "POST /api/v1/agent/heartbeat": _heartbeat,
    "GET /api/v1/agent/boards": None,
    f"GET {_BOARD}/tasks": None,
    f"POST {_BOARD}/tasks": _task,
    f"PATCH {_BOARD}/tasks/{{id}}": _move,
    f"GET {_BOARD}/tasks/{{id}}/comments": None,
    f"POST {_BOARD}/tasks/{{id}}/comments": _only("message"),
    f"GET {_BOARD}/memory": None,
    f"POST {_BOARD}/memory": _memory,
    f"GET {_BOARD}/approvals": None,
    f"POST {_BOARD}/approvals": _approval,
    "GET /api/v1/agent/agents": None,
    "POST /api/v1/agent/agents": _agent,
    f"POST {_BOARD}/agents/{{id}}/nudge": _only("message"),
    f"POST {_BOARD}/gateway/main/ask-user": _only("content"),
    "POST /api/v1/agent/gateway/boards/{board}/lead/message": _only("kind", "content"),
    "POST /api/v1/agent/gateway/leads/broadcast": _only("kind", "content"),
}


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        api: AgentApi = self.server.api  # type: ignore[attr-defined]
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        complaint, call = self._judged(api, raw)
        if complaint:
            api.complaints.append(f"{self.command} {self.path} {raw!r}: {complaint}")
        if call:
            api.calls.append(call)
        payload = json.dumps({"detail": complaint} if complaint else {"items": [], "total": 0}).encode()
        self.send_response(422 if complaint else 200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PATCH = _answer

    def _judged(self, api: AgentApi, raw: bytes) -> tuple[str, Call | None]:
        route = self._route()
        if route is None:
            return "no such call", None
        if route != "GET /healthz" and self.headers.get("X-Agent-Token") != api.token:
            return "wrong token", None
        accepts = ROUTES[route]
        if accepts is None:
            return "a body on a GET" if raw else "", Call(route, self.path, None)
        if self.headers.get("Content-Type") != "application/json":
            return "not sent as JSON", None
        try:
            body = json.loads(raw)
            fits = accepts(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return repr(error), None
        return "" if fits else "wrong fields", Call(route, self.path, body)

    def _route(self) -> str | None:
        asked = f"{self.command} {self.path}"
        for route in ROUTES:
            pattern = re.escape(route).replace(r"\{board\}", _UUID).replace(r"\{id\}", _UUID)
            if re.fullmatch(pattern, asked):
                return route
        return None

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the test prints what matters."""
