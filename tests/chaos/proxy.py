"""A TCP proxy that does to connections what networks do: cuts, delays, splits, refuses, and falls silent."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes connections on to ``port`` of 127.0.0.1. A context manager.

    ``delay_s``: up to how many seconds each piece is late; ``pieces``: into how many each is split, between
    which there is a pause; ``refuses``: whether new connections end at once; ``ends_at``: a connection whose
    server sends these bytes ends in their middle.
    """

    def __init__(self, port: int, rng: random.Random) -> None:
        self._server_port = port
        self._rng = rng
        self._lock = threading.Lock()
        self._lines: list[_Line] = []
        self.delay_s = 0.0
        self.pieces = 1
        self.refuses = False
        self.ends_at: bytes | None = None

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def lead_to(self, port: int) -> None:
        """Pass new connections on to another port from now on, and end the live ones."""
        self._server_port = port
        self.cut()

    def cut(self) -> int:
        """End all live connections, by a reset on both sides; how many."""
        lines = self._live()
        for line in lines:
            line.cut()
        return len(lines)

    def cut_inside(self) -> int:
        """End each live connection in the middle of the next piece that its server sends; how many."""
        lines = self._live()
        for line in lines:
            line.ends_inside = True
        return len(lines)

    def silence(self) -> int:
        """Pass nothing on any more on the live connections, and leave them open; how many."""
        lines = self._live()
        for line in lines:
            line.silent = True
        return len(lines)

    def _live(self) -> list[_Line]:
        with self._lock:
            self._lines = [line for line in self._lines if not line.over]
            return list(self._lines)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    if self.refuses:
                        raise ConnectionRefusedError
                    server = socket.create_connection(("127.0.0.1", self._server_port), timeout=5)
                except OSError:
                    _reset(client)
                    continue
                server.settimeout(None)
                line = _Line(self, client, server)
                with self._lock:
                    self._lines.append(line)
                line.start()

    def pass_on(self, piece: bytes, to: socket.socket) -> None:
        """Send a piece as slowly and in as many pieces as is set."""
        delay_s, pieces = self.delay_s, self.pieces
        if delay_s:
            time.sleep(self._rng.uniform(0.0, delay_s))
        size = max(1, -(-len(piece) // pieces))
        for start in range(0, len(piece), size):
            if start:
                time.sleep(0.01)
            to.sendall(piece[start : start + size])


class _Line:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self.silent = self.ends_inside = self.over = False
        self._other_side_ended = threading.Event()
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        for source, to in ((self._client, self._server), (self._server, self._client)):
            threading.Thread(target=self._copy, args=(source, to), daemon=True).start()

    def cut(self) -> None:
        self.over = True
        for each in (self._client, self._server):
            _reset(each)

    def _copy(self, source: socket.socket, to: socket.socket) -> None:
        try:
            while piece := source.recv(_CHUNK):
                if self.silent:
                    continue
                wanted = self._proxy.ends_at
                if source is self._server and (self.ends_inside or (wanted and wanted in piece)):
                    to.sendall(piece[: len(piece) // 2])
                    break
                self._proxy.pass_on(piece, to)
            else:
                to.shutdown(socket.SHUT_WR)
                if not self.silent and not self._other_side_ended.is_set():
                    self._other_side_ended.set()
                    return
        except OSError:
            pass
        self.cut()


def _reset(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        line.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
    line.close()
