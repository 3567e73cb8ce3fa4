"""A gateway's proxy that a test can hold shut: passes frames on, notes them, and keeps those it is told
to."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.http11 import Request, Response
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

_MAX = 32 * 2**20
_QUIET = logging.getLogger("tests.proxy.frames")
_QUIET.setLevel(logging.CRITICAL)

Wanted = Callable[[str, Mapping[str, Any]], bool]


@dataclass
class Frame:
    """A call that went through: when it went on to the gateway and when its answer came, in seconds since
    the epoch; ``answered_at`` None while there is none."""

    method: str
    params: Mapping[str, Any]
    at: float = field(default_factory=time.time)
    answered_at: float | None = None


class Hold:
    """One call kept at the proxy, while all others pass. ``reached`` is set when it came; ``release`` lets
    it, or its answer, on. Let go before it was reached, it keeps nothing."""

    def __init__(self, wanted: Wanted, *, after: bool) -> None:
        self.wanted = wanted
        self.after = after
        self.reached = threading.Event()
        self.taken = False
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._go_on: Callable[[], None] | None = None

    def keep(self, go_on: Callable[[], None]) -> None:
        """What is kept has come; ``go_on`` sends it on."""
        with self._lock:
            if not self.over.is_set():
                self._go_on = go_on
        if self.over.is_set():
            go_on()
        self.reached.set()

    def release(self) -> None:
        """Let it go on."""
        self._end(drop=False)

    def drop(self) -> None:
        """Let it be lost."""
        self._end(drop=True)

    def _end(self, *, drop: bool) -> None:
        with self._lock:
            self.taken = True
            go_on, self._go_on = self._go_on, None
            self.over.set()
        if go_on is not None and not drop:
            with suppress(ConnectionClosed):
                go_on()


class Proxy:
    """A websocket proxy before one gateway. ``frames`` are the calls that went through since `forget`."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._holds: list[Hold] = []
        self._lock = threading.Lock()
        self.frames: list[Frame] = []
        self._server: Server = serve(
            self._pass_on,
            "127.0.0.1",
            0,
            process_request=self._admit,
            max_size=_MAX,
            logger=_QUIET,
            compression=None,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._upstreams: dict[int, ClientConnection] = {}

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"

    @property
    def calls(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Method and parameters of what went through."""
        with self._lock:
            return [(frame.method, frame.params) for frame in self.frames]

    def count(self, *methods: str) -> int:
        """How many calls of these methods went through so far."""
        return sum(method in methods for method, _ in self.calls)

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.frames = []

    def hold(self, wanted: Wanted, *, after: bool = False) -> Hold:
        """Keep the next call that ``wanted(method, params)`` says yes to: before the gateway sees it, or
        (``after``) once it was carried out and before the answer comes back. Any number at a time."""
        hold = Hold(wanted, after=after)
        with self._lock:
            self._holds = [each for each in self._holds if not each.taken] + [hold]
        return hold

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hold in self._holds:
            hold.release()
        self._server.shutdown()
        self._thread.join(timeout=5)

    def _admit(self, client: ServerConnection, request: Request) -> Response | None:
        """A gateway that is away looks away through the proxy as well."""
        try:
            upstream = connect(
                self._upstream,
                max_size=_MAX,
                compression=None,
                proxy=None,
                logger=_QUIET,
                open_timeout=5,
                legacy=True,
            )
        except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
            return client.respond(503, "the gateway is away\n")
        self._upstreams[id(client)] = upstream
        return None

    def _pass_on(self, client: ServerConnection) -> None:
        upstream = self._upstreams.pop(id(client))
        waiting: dict[str, tuple[Frame, Hold | None]] = {}
        backwards = threading.Thread(target=self._answers, args=(client, upstream, waiting), daemon=True)
        backwards.start()
        try:
            for raw in client:
                self._call(upstream, raw, waiting)
        except ConnectionClosed:
            pass
        finally:
            upstream.close()
            backwards.join(timeout=5)

    def _call(
        self,
        upstream: ClientConnection,
        raw: str | bytes,
        waiting: dict[str, tuple[Frame, Hold | None]],
    ) -> None:
        message = json.loads(raw)
        method, params = str(message.get("method")), message.get("params") or {}
        hold = self._taker(method, params)

        def go_on() -> None:
            frame = Frame(method, params)
            waiting[str(message.get("id"))] = (frame, hold if hold is not None and hold.after else None)
            with self._lock:
                self.frames.append(frame)
            upstream.send(raw)

        if hold is not None and not hold.after:
            hold.keep(go_on)
        else:
            go_on()

    def _taker(self, method: str, params: Mapping[str, Any]) -> Hold | None:
        """The hold that keeps this call, if one does."""
        with self._lock:
            for hold in self._holds:
                if not hold.taken and hold.wanted(method, params):
                    hold.taken = True
                    return hold
        return None

    def _answers(
        self,
        client: ServerConnection,
        upstream: ClientConnection,
        waiting: dict[str, tuple[Frame, Hold | None]],
    ) -> None:
        code, reason = 1006, ""
        kept: list[Hold] = []
        try:
            for raw in upstream:
                message = json.loads(raw)
                known = message.get("type") == "res" and waiting.pop(str(message.get("id")), None)
                if not known:
                    client.send(raw)
                    continue
                frame, hold = known
                frame.answered_at = time.time()
                if hold is None:
                    client.send(raw)
                else:
                    kept.append(hold)
                    hold.keep(partial(client.send, raw))
        except ConnectionClosed:
            pass
        for hold in kept:  # the end of the connection comes after the answers, as on any wire
            hold.over.wait(60)
        if upstream.close_code is not None and upstream.close_code != 1006:
            code, reason = upstream.close_code, upstream.close_reason or ""
            client.close(code, reason)
        else:
            client.socket.close()
