"""The socket side: challenge, frames, events, restarts and stops (gateway.md 1, 5)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from worker.simulator.admission import Challenge, Grant, HandshakeRefusal, admit
from worker.simulator.gateway import Gateway
from worker.simulator.journal import Call, Journal, names_in
from worker.simulator.pace import Pace
from worker.simulator.pairing import Pairing
from worker.simulator.rate_limit import RateLimit
from worker.simulator.refusal import JSON, Refusal
from worker.simulator.release import Release

logger = logging.getLogger(__name__)

_HANDSHAKE_S = 15.0
_LAST_ACCEPT_S = 0.01
"""After listening ends, for sockets that were accepted just before it."""
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


class Server:
    """Serves one gateway on loopback, and boots it anew at each restart. Lives in one event loop."""

    def __init__(
        self,
        release: Release,
        state_dir: Path,
        *,
        token: str,
        port: int,
        pace: Pace,
        journal: Journal,
        reply: str | None,
        remote: bool,
    ) -> None:
        self.port = port
        self.pairing = Pairing(state_dir, release, remote=remote)
        self._release = release
        self._state_dir = state_dir
        self._token = token
        self._pace = pace
        self._journal = journal
        self._reply = reply
        self._limit = RateLimit("config.patch", release.patch_limit)
        self._sockets: WeakSet[ServerConnection] = WeakSet()
        self._admitted_sockets: set[ServerConnection] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._restarting: asyncio.Task[None] | None = None
        self._boot = 0
        self._boot_id = ""
        self._ready_at = 0.0
        self._sequence = 0
        self._listener: WebSocketServer | None = None
        self._gateway: Gateway | None = None

    async def open(self) -> None:
        """Boot the gateway from its files and listen; a port of 0 becomes a free one, and is kept."""
        self._boot += 1
        self._boot_id = str(uuid.uuid4())
        self._ready_at = time.monotonic() + self._pace.starting_s
        self._gateway = Gateway(
            self._state_dir,
            self._release,
            self._pace,
            self._journal,
            self,
            token=self._token,
            reply=self._reply,
            limit=self._limit,
            pairing=self.pairing,
        )
        self._listener = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            max_size=self._release.max_payload,
            compression=None,
            ping_interval=None,
            close_timeout=1,
            create_connection=cast("type[ServerConnection]", self._made),
            process_request=self._answer_http,
        )
        self.port = next(iter(self._listener.sockets)).getsockname()[1]
        self.spawn(self._tick())

    async def close(self) -> None:
        """Stop for good, as on SIGTERM: event, then close 1012 like a restart's."""
        self._cancel_timers()
        if self._restarting is not None:
            self._restarting.cancel()
        await self._shut(
            "gateway stopping", {} if self._release.explains_errors else {"restartExpectedMs": None}
        )

    async def abort(self) -> None:
        """Die as on SIGKILL: no event, no close frame."""
        self._cancel_timers()
        self._drop_sockets()
        await self._shut(None, {})

    async def restart(self) -> None:
        """Go down and come back, as after a patch or SIGUSR1."""
        self._journal.restarted(time.time())
        await self._shut("gateway restarting", {"restartExpectedMs": 1500})
        await asyncio.sleep(self._pace.down_s)
        await self.open()

    def restart_after(self, delay_s: float, reason: str) -> None:
        if reason not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[reason] = loop.call_later(delay_s, self._restart_due, reason)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def broadcast(self, event: str, payload: JSON) -> None:
        self._sequence += 1
        frame = {"type": "event", "event": event, "payload": payload, "seq": self._sequence}
        await asyncio.gather(*(_send(connection, frame) for connection in list(self._admitted_sockets)))

    def _restart_due(self, reason: str) -> None:
        del self._timers[reason]
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.create_task(self.restart())

    def _cancel_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def _shut(self, reason: str | None, more: JSON) -> None:
        for task in list(self._work):
            task.cancel()
        if self._listener is not None:
            self._listener.close(close_connections=False)
            await asyncio.sleep(_LAST_ACCEPT_S)
        if reason is not None:
            await self.broadcast("shutdown", {"reason": reason, **more})
            open_now = [item for item in self._sockets if item.protocol.state is State.OPEN]
            await asyncio.gather(*(item.close(1012, "service restart") for item in open_now))
        self._drop_sockets()
        if self._listener is not None:
            await self._listener.wait_closed()
            self._listener = None

    def _made(self, *arguments: Any, **options: Any) -> ServerConnection:
        connection = ServerConnection(*arguments, **options)
        self._sockets.add(connection)
        return connection

    def _drop_sockets(self) -> None:
        """End every socket as it is, one in the middle of its upgrade too."""
        for connection in self._sockets:
            connection.transport.abort()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._pace.tick_s)
            await self.broadcast("tick", {"ts": int(time.time() * 1000)})

    def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        return connection.respond(HTTPStatus.OK, f"OpenClaw {self._release.name}, simulated\n")

    async def _serve(self, connection: ServerConnection) -> None:
        name = str(uuid.uuid4())
        try:
            with contextlib.suppress(ConnectionClosed):
                grant = await self._handshake(connection, name)
                if grant is not None:
                    await self._answer_all(connection, name, grant)
        finally:
            self._admitted_sockets.discard(connection)

    async def _handshake(self, connection: ServerConnection, name: str) -> Grant | None:
        challenge = Challenge(str(uuid.uuid4()), int(time.time() * 1000))
        payload = {"nonce": challenge.nonce, "ts": challenge.ts}
        await _send(connection, {"type": "event", "event": "connect.challenge", "payload": payload})
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                frame = _frame(await connection.recv())
        except TimeoutError:
            frame = None
        if frame is None:
            await connection.close(1000)
            return None
        if frame.get("type") != "req" or not isinstance(frame.get("id"), str):
            await connection.close(1008, "invalid request frame")
            return None
        try:
            grant = self._admitted(connection, frame, challenge)
        except HandshakeRefusal as refusal:
            self._note(name, "connect", {}, refusal)
            await _answer(connection, frame["id"], refusal)
            await connection.close(refusal.close_code, refusal.close_reason)
            return None
        self._note(name, "connect", {}, None)
        self._admitted_sockets.add(connection)
        await _answer(connection, frame["id"], self._hello(name, grant))
        return grant

    def _admitted(self, connection: ServerConnection, frame: JSON, challenge: Challenge) -> Grant:
        if frame.get("method") != "connect":
            raise HandshakeRefusal("invalid handshake: first request must be connect")
        if time.monotonic() < self._ready_at:
            refusal = HandshakeRefusal(
                "gateway starting; retry shortly",
                code="UNAVAILABLE",
                details={"reason": "startup-sidecars"},
                close_code=1013,
            )
            refusal.retry_after_ms = 500
            raise refusal
        assert connection.request is not None
        grant = admit(
            frame.get("params") or {},
            release=self._release,
            token=self._token,
            challenge=challenge,
            now_ms=int(time.time() * 1000),
            origin=connection.request.headers.get("Origin"),
        )
        return self.pairing.settle(grant)

    async def _answer_all(self, connection: ServerConnection, name: str, grant: Grant) -> None:
        calls: set[asyncio.Task[None]] = set()
        try:
            async for message in connection:
                frame = _frame(message)
                if frame is not None and frame.get("type") == "req":
                    task = asyncio.create_task(self._answer_one(connection, name, grant, frame))
                    calls.add(task)
                    task.add_done_callback(calls.discard)
        finally:
            for task in calls:
                task.cancel()

    async def _answer_one(self, connection: ServerConnection, name: str, grant: Grant, frame: JSON) -> None:
        assert self._gateway is not None
        method, params = str(frame.get("method")), frame.get("params") or {}
        if self._pace.latency_s:
            await asyncio.sleep(self._pace.latency_s)
        outcome: JSON | Refusal
        try:
            outcome = await self._gateway.call(method, params, grant, grant.device_id or name)
        except Refusal as refusal:
            outcome = refusal
        except Exception as error:
            logger.exception("simulated %s failed", method)
            outcome = Refusal(f"Error: {type(error).__name__}", code="UNAVAILABLE")
        self._note(name, method, names_in(params), outcome if isinstance(outcome, Refusal) else None)
        await _answer(connection, str(frame.get("id")), outcome)

    def _note(self, connection: str, method: str, names: dict[str, str], refusal: Refusal | None) -> None:
        code, message = (refusal.code, refusal.message) if refusal is not None else (None, None)
        call = Call(method, time.time(), connection, self._boot, names, refusal is None, code, message)
        self._journal.record(call)

    def _hello(self, name: str, grant: Grant) -> JSON:
        release = self._release
        server: JSON = {"version": release.reported_version, "connId": name}
        features: JSON = {"methods": sorted(release.methods), "events": _EVENTS}
        if release.explains_errors:
            server["bootId"] = self._boot_id
            features["capabilities"] = []
        hello: JSON = {
            "type": "hello-ok",
            "protocol": release.protocol,
            "server": server,
            "features": features,
            "snapshot": {
                "configPath": str(self._state_dir / "openclaw.json"),
                "stateDir": str(self._state_dir),
                "sessionDefaults": {"defaultAgentId": "main", "mainSessionKey": "agent:main:main"},
            },
            "policy": {
                "maxPayload": release.max_payload,
                "maxBufferedBytes": release.max_buffered,
                "tickIntervalMs": round(self._pace.tick_s * 1000),
            },
        }
        if (auth := _auth(release, grant)) is not None:
            hello["auth"] = auth
        return hello


def _auth(release: Release, grant: Grant) -> JSON | None:
    auth: JSON = {"role": grant.role, "scopes": list(grant.scopes)}
    issued = {"deviceToken": uuid.uuid4().hex, "issuedAtMs": int(time.time() * 1000)}
    if release.explains_errors:
        auth["method"] = "token"
        return auth | issued if grant.device_id is not None and grant.mode != "backend" else auth
    if grant.device_id is None:
        return None
    return {**issued, **auth, "scopes": sorted(grant.scopes)}


def _frame(message: str | bytes) -> JSON | None:
    try:
        frame = json.loads(message)
    except ValueError:
        return None
    return frame if isinstance(frame, dict) else None


async def _answer(connection: ServerConnection, request_id: str, outcome: JSON | Refusal) -> None:
    frame: JSON = {"type": "res", "id": request_id, "ok": not isinstance(outcome, Refusal)}
    if isinstance(outcome, Refusal):
        if outcome.payload is not None:
            frame["payload"] = outcome.payload
        frame["error"] = outcome.as_error()
    else:
        frame["payload"] = outcome
    await _send(connection, frame)


async def _send(connection: ServerConnection, frame: JSON) -> None:
    with contextlib.suppress(ConnectionClosed):
        await connection.send(json.dumps(frame, ensure_ascii=False))
