"""A gateway's door that a test can hold shut: passes every frame on, and stops at the call it is told to."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
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


class Hold:
    """One call held at the door. ``reached`` is set when it came; ``release`` lets it, or its answer, on."""

    def __init__(self, wanted: Wanted, *, after: bool) -> None:
        self.wanted = wanted
        self.after = after
        self.reached = threading.Event()
        self.released = threading.Event()
        self.dropped = False
        self.id: str | None = None

    def release(self) -> None:
        """Let it go on."""
        self.released.set()

    def drop(self) -> None:
        """Let it be lost."""
        self.dropped = True
        self.released.set()


class Door:
    """A websocket proxy before one gateway. ``calls`` counts what went through, by method."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._hold: Hold | None = None
        self._lock = threading.Lock()
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
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

    def count(self, *methods: str) -> int:
        """How many calls of these methods went through so far."""
        with self._lock:
            return sum(method in methods for method, _ in self.calls)

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.calls.clear()

    def hold(self, wanted: Wanted, *, after: bool = False) -> Hold:
        """Stop the next call that ``wanted(method, params)`` says yes to: before the gateway sees it, or
        (``after``) once it was carried out and before the answer comes back."""
        self._hold = Hold(wanted, after=after)
        return self._hold

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hold is not None:
            self._hold.release()
        self._server.shutdown()
        self._thread.join(timeout=5)

    def _admit(self, client: ServerConnection, request: Request) -> Response | None:
        """A gateway that is away looks away through the door as well."""
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
        backwards = threading.Thread(target=self._answers, args=(client, upstream), daemon=True)
        backwards.start()
        try:
            for frame in client:
                if self._note(frame):
                    upstream.send(frame)
        except ConnectionClosed:
            pass
        finally:
            upstream.close()
            backwards.join(timeout=5)

    def _note(self, frame: str | bytes) -> bool:
        """Whether the frame goes on."""
        message = json.loads(frame)
        method, params = str(message.get("method")), message.get("params") or {}
        hold = self._hold
        if hold is not None and not hold.reached.is_set() and hold.wanted(method, params):
            hold.id = str(message.get("id"))
            if not hold.after:
                hold.reached.set()
                hold.released.wait(60)
                if hold.dropped:
                    return False
        with self._lock:
            self.calls.append((method, params))
        return True

    def _answers(self, client: ServerConnection, upstream: ClientConnection) -> None:
        code, reason = 1006, ""
        try:
            for frame in upstream:
                hold = self._hold
                if hold is not None and hold.after and hold.id is not None and not hold.reached.is_set():
                    message = json.loads(frame)
                    if message.get("type") == "res" and str(message.get("id")) == hold.id:
                        hold.reached.set()
                        hold.released.wait(60)
                client.send(frame)
        except ConnectionClosed:
            pass
        if upstream.close_code is not None and upstream.close_code != 1006:
            code, reason = upstream.close_code, upstream.close_reason or ""
            client.close(code, reason)
        else:
            client.socket.close()
