"""Listens for connections, sends events, restarts and stops (gateways.md 1, 5)."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from worker.lab.simulator.connection import Boot, Connection, SharedState
from worker.lab.simulator.fault_schedule import FaultSchedule
from worker.lab.simulator.faults import RefuseUpgrade
from worker.lab.simulator.framing import FrameWriter, socket_logger
from worker.lab.simulator.gateway import Gateway
from worker.lab.simulator.journal import Journal
from worker.lab.simulator.pairing import Pairing
from worker.lab.simulator.rate_limit import RateLimit
from worker.lab.simulator.refusal import JSON
from worker.lab.simulator.release import Release
from worker.lab.simulator.restarts import Restarts
from worker.lab.simulator.timings import Timings

_LAST_ACCEPT_S = 0.01
"""After listening ends, for sockets that were accepted just before it."""
_TURNS_TO_A_TRANSPORT = 10


class Server:
    """Serves one gateway on loopback, and boots it again at each restart. Runs in one event loop."""

    def __init__(
        self,
        release: Release,
        state_dir: Path,
        *,
        token: str,
        port: int,
        timings: Timings,
        journal: Journal,
        faults: FaultSchedule,
        reply: str | None,
        remote: bool,
        environment: Mapping[str, str],
    ) -> None:
        self.port = port
        self.pairing = Pairing(state_dir, release, remote=remote)
        self._release = release
        self._state_dir = state_dir
        self._token = token
        self._timings = timings
        self._journal = journal
        self._faults = faults
        self._reply = reply
        self._environment = environment
        self._limit = RateLimit("config.patch", release.patch_limit, timings.limit_window_s)
        self._restarts = Restarts(release, timings, self._begin_restart)
        self._shared = SharedState(release, state_dir, token, timings, journal, faults, self.pairing, self)
        self._sockets: WeakSet[ServerConnection] = WeakSet()
        self._writers: set[FrameWriter] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._restarting: asyncio.Task[None] | None = None
        self._closing = False
        self._boots = 0
        self._boot: Boot | None = None
        self._sequence = 0
        self._listener: WebSocketServer | None = None

    async def open(self) -> None:
        """Boot the gateway from its files and listen; port 0 picks a free one, which is kept."""
        gateway = Gateway(
            self._state_dir,
            self._release,
            self._timings,
            self._journal,
            self,
            token=self._token,
            reply=self._reply,
            environment=self._environment,
            limit=self._limit,
            pairing=self.pairing,
        )
        self._boots += 1
        self._boot = Boot(
            self._boots, str(uuid.uuid4()), time.monotonic() + self._timings.starting_s, gateway
        )
        self._closing = False
        await self._listen()
        self.spawn(self._tick())

    async def close(self) -> None:
        """Stop for good, as on SIGTERM: the event, then a close with 1012, as in a restart."""
        self._end_plans()
        await self._shut(
            "gateway stopping", {} if self._release.explains_errors else {"restartExpectedMs": None}
        )

    async def abort(self) -> None:
        """Die as on SIGKILL: no event, no close frame."""
        self._end_plans()
        await self._drop_sockets()
        await self._shut(None, {})

    async def restart(self, down_s: float | None = None) -> None:
        """Restart, as after a patch or SIGUSR1; the port refuses connections for ``down_s`` seconds in
        between."""
        self._restarts.began()
        self._journal.restarted(time.time())
        await self._shut("gateway restarting", {"restartExpectedMs": 1500})
        await asyncio.sleep(self._timings.down_s if down_s is None else down_s)
        if self._boot is None or self._boot.gateway.config.can_be_started_with():
            await self.open()

    def restart_after_patch(self, delay_ms: int | None) -> JSON:
        return self._restarts.asked(delay_ms)

    def restart_for_channels(self) -> None:
        self._restarts.watcher_saw_channels()

    def restart_in(self, delay_s: float, down_s: float | None) -> None:
        """Restart ``delay_s`` seconds from now, unless a restart is under way then."""
        self._later(delay_s, lambda: self._begin_restart(down_s))

    async def refuse_connections(self, seconds: float) -> None:
        """Stop listening, and listen again after that time; connections stay open."""
        await self._stop_listening()
        for connection in list(self._sockets):
            if connection.protocol.state is State.CONNECTING and await _has_transport(connection):
                connection.transport.abort()
        self._later(seconds, lambda: self.spawn(self._listen_again()))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def broadcast(self, event: str, payload: JSON) -> None:
        self._sequence += 1
        frame = {"type": "event", "event": event, "payload": payload, "seq": self._sequence}
        await asyncio.gather(*(writer.send(frame) for writer in list(self._writers)))

    async def _listen(self) -> None:
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
            logger=socket_logger(),
        )
        self.port = next(iter(self._listener.sockets)).getsockname()[1]

    async def _listen_again(self) -> None:
        is_listening = self._listener is not None and self._listener.is_serving()
        if not is_listening and (self._restarting is None or self._restarting.done()):
            await self._listen()

    def _begin_restart(self, down_s: float | None = None) -> None:
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.create_task(self.restart(down_s))

    def _later(self, delay_s: float, act: Any) -> None:
        def ring() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(delay_s, ring)
        self._timers.add(timer)

    def _end_plans(self) -> None:
        self._restarts.cancel()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._restarting is not None:
            self._restarting.cancel()

    async def _shut(self, reason: str | None, more: JSON) -> None:
        for task in list(self._work):
            task.cancel()
        self._closing = self._release.refuses_while_closing and reason is not None
        if not self._closing:
            await self._stop_listening()
        if reason is not None:
            await self.broadcast("shutdown", {"reason": reason, **more})
            open_now = [item for item in self._sockets if item.protocol.state is State.OPEN]
            await asyncio.gather(*(item.close(1012, "service restart") for item in open_now))
        if self._closing:
            await asyncio.sleep(self._timings.closing_s)
            await self._stop_listening()
        await self._drop_sockets()
        if self._listener is not None:
            await self._listener.wait_closed()
            self._listener = None

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close(close_connections=False)
            await asyncio.sleep(_LAST_ACCEPT_S)

    def _made(self, *arguments: Any, **options: Any) -> ServerConnection:
        connection = ServerConnection(*arguments, **options)
        self._sockets.add(connection)
        return connection

    async def _drop_sockets(self) -> None:
        """End every socket as it is, one in the middle of its upgrade too."""
        for connection in list(self._sockets):
            if await _has_transport(connection):
                connection.transport.abort()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._timings.tick_s)
            await self.broadcast("tick", {"ts": int(time.time() * 1000)})

    def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return connection.respond(HTTPStatus.OK, f"OpenClaw {self._release.name}, simulated\n")
        if self._closing:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "Gateway websocket admission closed")
        scheduled = self._faults.struck("upgrade")
        if scheduled is not None and isinstance(scheduled.fault.kind, RefuseUpgrade):
            return connection.respond(HTTPStatus(scheduled.fault.kind.status), "refused\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        assert self._boot is not None
        writer = FrameWriter(connection)
        client = Connection(self._shared, self._boot, writer)
        try:
            with contextlib.suppress(ConnectionClosed):
                if await client.open():
                    self._writers.add(writer)
                    await client.answer_all()
        finally:
            self._writers.discard(writer)


async def _has_transport(connection: ServerConnection) -> bool:
    """Whether the loop has given it one: to a socket accepted a moment ago, it does in its next turns."""
    for _ in range(_TURNS_TO_A_TRANSPORT):
        if hasattr(connection, "transport"):
            return True
        await asyncio.sleep(0)
    return False
