"""A gateway that behaves as a test tells it: real sockets, the real handshake, any behaviour after it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from worker.gateway.address import GatewayAddress

TOKEN = "hush-hush-token"


class Peer:
    """The gateway's end of one connection."""

    def __init__(self, websocket: ServerConnection) -> None:
        self.websocket = websocket

    def say(self, message: object) -> None:
        """Send anything: a mapping as JSON, text unchanged."""
        self.websocket.send(message if isinstance(message, str) else json.dumps(message, ensure_ascii=False))

    def answer(self, request: Mapping[str, Any], payload: Mapping[str, Any] | None = None) -> None:
        self.say({"type": "res", "id": request["id"], "ok": True, "payload": payload or {}})

    def refuse(self, request: Mapping[str, Any], error: Mapping[str, Any]) -> None:
        self.say({"type": "res", "id": request["id"], "ok": False, "error": error})

    def announce_shutdown(self, expected_ms: int | None) -> None:
        payload = {"reason": "gateway restarting", "restartExpectedMs": expected_ms}
        self.say({"type": "event", "event": "shutdown", "payload": payload})


def echo(peer: Peer, request: Mapping[str, Any]) -> None:
    """Answer every request with its own parameters."""
    peer.answer(request, {"method": request["method"], "params": request["params"]})


@dataclass
class Script:
    """What the gateway does. Tests change it before they connect."""

    behave: Callable[[Peer, Mapping[str, Any]], None] = echo
    connect: Callable[[Peer, Mapping[str, Any]], None] | None = None
    before_challenge: tuple[object, ...] = ()
    challenge: bool = True
    upgrade_status: HTTPStatus | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hello: dict[str, Any] = field(default_factory=dict)
    requests: list[Mapping[str, Any]] = field(default_factory=list)
    upgrades: list[Request] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)


def hello_payload(**more: Any) -> dict[str, Any]:
    return {
        "type": "hello-ok",
        "protocol": 4,
        "server": {"version": "scripted", "bootId": "boot-1", "connId": "c"},
        "features": {"methods": ["health"], "events": ["tick"]},
        "auth": {"role": "operator", "scopes": ["operator.admin"]},
        "policy": {"maxPayload": 26214400, "tickIntervalMs": 30000},
        **more,
    }


def _handle(script: Script, websocket: ServerConnection) -> None:
    peer = Peer(websocket)
    script.peers.append(peer)
    try:
        for message in script.before_challenge:
            peer.say(message)
        if script.challenge:
            payload = {"nonce": "nonce-1", "ts": 1_700_000_000_000}
            peer.say({"type": "event", "event": "connect.challenge", "payload": payload})
        for frame in websocket:
            request = json.loads(frame)
            script.requests.append(request)
            if request["method"] != "connect":
                script.behave(peer, request)
            elif script.connect is not None:
                script.connect(peer, request)
            else:
                peer.answer(request, script.hello or hello_payload())
    except ConnectionClosed:
        pass


@contextmanager
def scripted_gateway(script: Script, *, port: int = 0, ssl: Any = None) -> Iterator[GatewayAddress]:
    """Runs the gateway on a loopback port; all its connections end with it."""

    def upgrade(connection: ServerConnection, request: Request) -> Response | None:
        script.upgrades.append(request)
        if script.upgrade_status is None:
            return None
        response = connection.respond(script.upgrade_status, "no\n")
        for name, value in script.headers.items():
            response.headers[name] = value
        return response

    with serve(
        lambda websocket: _handle(script, websocket),
        "127.0.0.1",
        port,
        process_request=upgrade,
        compression=None,
        max_size=64 * 1024 * 1024,
        close_timeout=1,
        ssl=ssl,
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        scheme = "ws" if ssl is None else "wss"
        try:
            yield GatewayAddress(f"{scheme}://127.0.0.1:{server.socket.getsockname()[1]}", token=TOKEN)
        finally:
            server.shutdown()
            thread.join()
            for peer in script.peers:
                peer.websocket.close_socket()
