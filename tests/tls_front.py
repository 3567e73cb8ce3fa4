"""A TLS front for a server without TLS: it terminates TLS and forwards the data unencrypted."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def tls_front(context: ssl.SSLContext, port: int) -> Iterator[int]:
    """Forward TLS connections to ``port``, and yield the port on 127.0.0.1 that accepts them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, context, port), daemon=True).start()
        yield listener.getsockname()[1]


def _serve(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            raw, _ = listener.accept()
            threading.Thread(target=_lead, args=(raw, context, port), daemon=True).start()


def _lead(raw: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with contextlib.suppress(OSError), raw:
        outside = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        try:
            outside.do_handshake()
        except OSError:
            _close_after_reading(outside)
            return
        with outside, socket.create_connection(("127.0.0.1", port)) as inside:
            _forward(outside, inside)


def _close_after_reading(refused: ssl.SSLSocket) -> None:
    """Close a connection whose handshake failed, once the client has closed it. Were it closed with bytes of
    the client unread, the client would be reset, and might never read the alert that says why."""
    with contextlib.suppress(OSError), socket.socket(fileno=refused.detach()) as plain:
        plain.settimeout(5)
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(65536):
            pass


def _forward(outside: socket.socket, inside: socket.socket) -> None:
    back = threading.Thread(target=_copy, args=(inside, outside), daemon=True)
    back.start()
    _copy(outside, inside)
    back.join()


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_RDWR)
