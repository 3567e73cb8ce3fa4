"""An HTTPS server that receives webhooks and answers as it is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any, Self

WAIT_S = 60.0


@dataclass(frozen=True)
class Received:
    """One message as it came in."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        """The body, read."""
        return json.loads(self.body)

    def is_signed_with(self, secret: bytes) -> bool:
        """Whether one of the signatures is the secret's, as a receiver finds out."""
        content = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        wanted = "v1," + base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
        return wanted in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """A context manager. ``status`` and ``headers``: of the next answers; ``before_answer``: called between a
    message and its answer, with the handler."""

    tls: ssl.SSLContext
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    before_answer: Callable[[BaseHTTPRequestHandler], None] = lambda _: None

    def __enter__(self) -> Self:
        self._received: Queue[Received] = Queue()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                names = {name.lower(): value for name, value in self.headers.items()}
                receiver._received.put(Received(self.path, names, body))
                receiver.before_answer(self)
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.tls = self.tls
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        """Its address."""
        return f"https://{host}:{self._server.server_port}{path}"

    @property
    def connections(self) -> int:
        """How many connections were made to it."""
        return self._server.accepted

    def take(self) -> Received:
        """The oldest message that was not taken yet."""
        return self._received.get(timeout=WAIT_S)

    def nothing_more(self) -> bool:
        """Whether all messages were taken."""
        return self._received.empty()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    tls: ssl.SSLContext
    accepted = 0

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self.accepted += 1
        connection.settimeout(WAIT_S)
        return self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is none."""
