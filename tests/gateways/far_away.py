"""A reverse proxy before a gateway: whoever comes through it comes from another machine (gateways.md 4)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def from_far_away(port: int) -> Iterator[str]:
    """The proxy's URL; it says that its clients are at 203.0.113.7."""
    with socket.create_server(("127.0.0.1", 0)) as proxy, contextlib.ExitStack() as sockets:
        thread = threading.Thread(target=_serve, args=(proxy, port, sockets))
        thread.start()
        try:
            yield f"ws://127.0.0.1:{proxy.getsockname()[1]}"
        finally:
            proxy.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(proxy: socket.socket, port: int, sockets: contextlib.ExitStack) -> None:
    while True:
        try:
            client, _ = proxy.accept()
        except OSError:
            return
        sockets.callback(client.close)
        gateway = sockets.enter_context(socket.create_connection(("127.0.0.1", port)))
        head = client.recv(65536)
        line, _, rest = head.partition(b"\r\n")
        gateway.sendall(line + b"\r\nX-Forwarded-For: 203.0.113.7\r\n" + rest)
        for source, target in ((client, gateway), (gateway, client)):
            threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
