"""A language model on loopback: answers all requests alike, remembers what it was asked (gateways.md 11)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class ModelRequest:
    """One chat completion that was asked for. ``body`` is the request as JSON."""

    path: str
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """All that the model was told, system prompt included, as one text."""
        return "\n".join(_texts(self.body.get("messages", [])))


class StubModel:
    """OpenAI chat completions, plain and streamed. A context manager; ``config`` is for the gateway;
    ``refuses``: a text for which a request is answered with HTTP 400."""

    def __init__(self, answer: str = "HEARTBEAT_OK") -> None:
        self.answer = answer
        self.refuses: str | None = None
        self._requests: list[ModelRequest] = []
        self._changed = threading.Condition()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def config(self) -> dict[str, Any]:
        """What to merge into openclaw.json: this model alone, and runs without what no test here looks at.

        A run on 2026.9.6 takes half the CPU without the shipped skills, the watch on them, and the index of
        the agent's memory files.
        """
        models = [self._model(name) for name in ("m", "n")]
        provider = {
            "baseUrl": f"http://127.0.0.1:{self.port}/v1",
            "apiKey": "x",
            "api": "openai-completions",
            "models": models,
        }
        return {
            "agents": {"defaults": {"model": {"primary": "stub/m"}}},
            "models": {"mode": "replace", "providers": {"stub": provider}},
            "skills": {"load": {"watch": False}, "allowBundled": ["none"]},
            "plugins": {"slots": {"memory": "none"}},
        }

    @staticmethod
    def _model(name: str) -> dict[str, Any]:
        return {
            "id": name,
            "name": name,
            "reasoning": False,
            "input": ["text"],
            "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
            "contextWindow": 128_000,
            "maxTokens": 4096,
        }

    @property
    def requests(self) -> list[ModelRequest]:
        """What was asked so far, oldest first."""
        with self._changed:
            return list(self._requests)

    def wait_for(self, wanted: Callable[[ModelRequest], bool], timeout_s: float = 60.0) -> ModelRequest:
        """The first request, past or coming, that ``wanted`` says yes to. Raises ``TimeoutError``."""
        deadline = time.monotonic() + timeout_s
        seen = 0
        with self._changed:
            while True:
                for request in self._requests[seen:]:
                    if wanted(request):
                        return request
                seen = len(self._requests)
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(
                        f"none of {seen} requests to the model was the one, in {timeout_s:g} s"
                    )

    def record(self, request: ModelRequest) -> None:
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, model: StubModel) -> None:
        self.model = model
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A gateway that is killed drops its connections; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        request = ModelRequest(self.path, body)
        self.server.model.record(request)
        answer, refuses = self.server.model.answer, self.server.model.refuses
        if refuses is not None and refuses in request.text:
            error = {"error": {"message": "the stub refuses this", "type": "invalid_request_error"}}
            self._send("application/json", json.dumps(error).encode(), 400)
        elif body.get("stream"):
            self._send("text/event-stream", "".join(_stream(answer)).encode())
        else:
            self._send("application/json", json.dumps(_completion(answer)).encode())

    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": name, "object": "model"} for name in ("m", "n")]}
        self._send("application/json", json.dumps(models).encode())

    def _send(self, content_type: str, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def _completion(answer: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": _USAGE,
    }


def _stream(answer: str) -> Iterator[str]:
    def event(delta: dict[str, str], finish: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "m",
            "choices": [choice],
        }
        return f"data: {json.dumps(chunk | ({'usage': _USAGE} if finish else {}))}\n\n"

    yield event({"role": "assistant", "content": ""}, None)
    yield event({"content": answer}, None)
    yield event({}, "stop")
    yield "data: [DONE]\n\n"


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from _texts(part)
    elif isinstance(content, dict):
        yield from _texts(content.get("content"))
        yield from _texts(content.get("text"))
