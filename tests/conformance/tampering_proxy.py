"""A proxy that spoils what passes: for what a real release cannot be brought to do itself."""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.conformance.peer import JSON

_MAX = 2**26
_QUIET = logging.getLogger("tests.tampering_proxy.frames")
_QUIET.setLevel(logging.CRITICAL)

Change = Callable[[JSON], JSON]
"""What goes on in place of a request."""

Instead = Callable[[ServerConnection, JSON], bool]
"""Deals with a request in place of the gateway; False where it is none of its business."""


@contextmanager
def tampering_proxy(
    upstream: str,
    *,
    headers: Mapping[str, str] | None = None,
    change: Change | None = None,
    instead: Instead | None = None,
) -> Iterator[str]:
    """The proxy's URL. ``headers`` are added to the upgrade that the gateway sees."""

    def pass_on(client: ServerConnection) -> None:
        with (
            suppress(ConnectionClosed),
            connect(
                upstream,
                additional_headers=headers,
                max_size=_MAX,
                compression=None,
                proxy=None,
                logger=_QUIET,
                legacy=True,
            ) as gateway,
        ):
            answers = threading.Thread(target=_answers, args=(client, gateway))
            answers.start()
            try:
                for frame in client:
                    request = json.loads(frame)
                    if instead is None or not instead(client, request):
                        gateway.send(json.dumps(change(request) if change else request))
            finally:
                gateway.close()
                answers.join()

    server = serve(pass_on, "127.0.0.1", 0, max_size=_MAX, compression=None, logger=_QUIET)
    with server, _url_of(server) as url:
        yield url


@contextmanager
def _url_of(server: Server) -> Iterator[str]:
    """The server's URL, while a thread serves it."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()
        thread.join()


def _answers(client: ServerConnection, gateway: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        for frame in gateway:
            client.send(frame)
    if gateway.close_code is not None and gateway.close_code != 1006:
        client.close(gateway.close_code, gateway.close_reason or "")


@contextmanager
def refusing_upgrade(status: HTTPStatus, **headers: str) -> Iterator[str]:
    """The URL of a web server that answers every upgrade with ``status``."""

    def refuse(client: ServerConnection, request: Request) -> Response:
        response = client.respond(status, "no\n")
        for name, value in headers.items():
            response.headers[name] = value
        return response

    server = serve(lambda client: None, "127.0.0.1", 0, process_request=refuse, logger=_QUIET)
    with server, _url_of(server) as url:
        yield url


def closing(method: str, code: int, reason: str = "") -> Instead:
    """Close with ``code`` in place of the answer to ``method``."""

    def act(client: ServerConnection, request: JSON) -> bool:
        if request["method"] != method:
            return False
        client.close(code, reason)
        return True

    return act


def vanishing(method: str, *, reset: bool = False) -> Instead:
    """End the connection without a close frame in place of the answer; by RST where ``reset``."""

    def act(client: ServerConnection, request: JSON) -> bool:
        if request["method"] != method:
            return False
        if reset:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                client.socket.shutdown(socket.SHUT_RD)
            client.socket.close()
        else:
            client.close_socket()
        return True

    return act


def refusing(method: str, error: Mapping[str, object]) -> Instead:
    """Answer ``method`` with this error."""

    def act(client: ServerConnection, request: JSON) -> bool:
        if request["method"] != method:
            return False
        client.send(json.dumps({"type": "res", "id": request["id"], "ok": False, "error": dict(error)}))
        return True

    return act


def ignoring(method: str) -> Instead:
    """Never answer ``method``."""
    return lambda client, request: bool(request["method"] == method)
