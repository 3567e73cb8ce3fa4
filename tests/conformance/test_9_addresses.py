"""What our client makes of an address where something else answers, or nobody (rules.md 44).

``pytest -rP`` prints the sentences.
"""

from __future__ import annotations

import http.server
import socket
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import self_signed
from tests.conformance.tampering_proxy import refusing_upgrade
from tests.conformance.visitor import Visitor
from tests.integration.gateway.scripted import Script, scripted_gateway
from worker.gateway import errors

TOKEN = "hush-hush-token"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_that_is_not_ready_is_transient(status: int) -> None:
    with refusing_upgrade(HTTPStatus(status)) as url, Visitor(url, TOKEN) as visitor:
        error = visitor.refused(says=(f"HTTP {status}", "proxy"))
    assert type(error) is errors.GatewayUnreachable


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (404, {}, "check host, port and path in gateways.url"),
        (401, {"WWW-Authenticate": "Basic"}, "login"),
        (403, {}, "login"),
        (307, {"Location": "ws://127.0.0.1:9/final-hush"}, "final address"),
        (200, {}, "check host, port and path in gateways.url"),
    ],
)
def test_another_web_server_is_permanent_and_says_what_to_look_at(
    status: int, headers: dict[str, str], says: str
) -> None:
    with refusing_upgrade(HTTPStatus(status), **headers) as url, Visitor(url, TOKEN) as visitor:
        error = visitor.refused(says=(f"HTTP {status}", says))
    assert type(error) is errors.PermanentGatewayError
    assert "final-hush" not in str(error)


def test_a_web_server_that_knows_no_websocket_is_permanent() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Visitor(f"ws://127.0.0.1:{server.server_address[1]}/x", TOKEN) as visitor:
            error = visitor.refused(says=("not a WebSocket server", "gateways.url"))
        server.shutdown()
        thread.join()
    assert type(error) is errors.PermanentGatewayError


class _Silent(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_another_protocol_on_the_port_is_permanent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def banner() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"220 mail.example ESMTP\r\n\r\n")

        thread = threading.Thread(target=banner)
        thread.start()
        with Visitor(f"ws://127.0.0.1:{server.getsockname()[1]}", TOKEN) as visitor:
            error = visitor.refused(says=("not a WebSocket server", "gateways.url"))
        thread.join()
    assert type(error) is errors.PermanentGatewayError


def test_another_websocket_server_is_permanent_once_it_greets() -> None:
    script = Script(hello={"type": "welcome"})
    with scripted_gateway(script) as address, Visitor(address.url, TOKEN) as visitor:
        error = visitor.refused(says=("does not greet", "gateways.url"))
    assert type(error) is errors.PermanentGatewayError


def test_an_untrusted_certificate_is_permanent_and_names_both_cures(tmp_path: Path) -> None:
    with (
        scripted_gateway(Script(), ssl=self_signed(tmp_path)) as address,
        Visitor(address.url, TOKEN) as visitor,
    ):
        error = visitor.refused(says=("self-signed", "allow_insecure_tls"))
    assert type(error) is errors.PermanentGatewayError


def test_a_plain_url_of_a_tls_port_hints_at_wss(tmp_path: Path) -> None:
    with (
        scripted_gateway(Script(), ssl=self_signed(tmp_path)) as address,
        Visitor(address.url.replace("wss:", "ws:"), TOKEN) as visitor,
    ):
        error = visitor.refused(says=("wss://",))
    assert type(error) is errors.GatewayUnreachable


def test_an_unknown_host_may_be_known_again() -> None:
    with Visitor("ws://gateway.invalid:18789", TOKEN) as visitor:
        error = visitor.refused(says=("gateways.url", "network"))
    assert type(error) is errors.GatewayUnreachable
