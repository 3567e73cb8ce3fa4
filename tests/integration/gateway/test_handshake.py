"""The handshake, and every way in which it can fail: each with its own type and sentence (rules.md 44)."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import self_signed
from tests.integration.gateway.conftest import SOON_S, Connect
from tests.integration.gateway.scripted import TOKEN, Peer, Script, hello_payload, scripted_gateway
from worker.gateway import errors
from worker.gateway.address import GatewayAddress
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey


def refusal_of(address: GatewayAddress, device: DeviceKey, deadline_s: float = 5) -> errors.GatewayError:
    with pytest.raises(errors.GatewayError) as caught:
        GatewayConnection.open(address, device, deadline_s=deadline_s)
    assert TOKEN not in str(caught.value)
    return caught.value


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_open_connection_has_the_gateways_hello(connect: Connect) -> None:
    hello = connect().hello
    assert (hello.protocol, hello.server_version, hello.boot_id) == (4, "scripted", "boot-1")


def test_token_travels_in_connect_only_and_no_origin_is_sent(connect: Connect, script: Script) -> None:
    connect()
    (upgrade,) = script.upgrades
    assert TOKEN not in upgrade.path
    assert TOKEN not in str(upgrade.headers)
    assert "Origin" not in upgrade.headers
    (request,) = script.requests
    assert request["params"]["auth"] == {"token": TOKEN}
    assert request["params"]["device"]["nonce"] == "nonce-1"
    assert request["params"]["device"]["signedAt"] == 1_700_000_000_000


def test_token_is_logged_at_no_level(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connect().call("health", {"secret": TOKEN})
    ours = [record.getMessage() for record in caplog.records if record.name != "websockets.server"]
    assert TOKEN not in "".join(ours)


def test_other_frames_before_the_challenge_do_no_harm(script: Script, connect: Connect) -> None:
    script.before_challenge = ("rubbish", {"type": "event", "event": "hi"}, [1], {"type": "res", "id": 3})
    assert connect().call("health") == {"method": "health", "params": {}}


def test_dead_port_is_unreachable(device: DeviceKey) -> None:
    refusal = refusal_of(GatewayAddress(f"ws://127.0.0.1:{free_port()}", token=TOKEN), device)
    assert type(refusal) is errors.GatewayUnreachable
    assert "Connection refused" in str(refusal)


def test_unknown_host_is_unreachable_for_it_may_come_back(device: DeviceKey) -> None:
    refusal = refusal_of(GatewayAddress("ws://gateway.invalid:1", token=TOKEN), device)
    assert type(refusal) is errors.GatewayUnreachable


@pytest.mark.parametrize("status", [502, 503, 504, 500, 429])
def test_proxy_that_is_not_ready_is_unreachable(
    gateway: GatewayAddress, device: DeviceKey, script: Script, status: int
) -> None:
    script.upgrade_status = HTTPStatus(status)
    refusal = refusal_of(gateway, device)
    assert type(refusal) is errors.GatewayUnreachable
    assert f"HTTP {status}" in str(refusal)


def is_no_gateway(refusal: errors.GatewayError) -> bool:
    """Whether the error says that something other than a gateway answered."""
    return type(refusal) is errors.PermanentGatewayError and str(refusal).startswith("what answers at ")


@pytest.mark.parametrize("status", [200, 401, 403, 404])
def test_web_server_is_no_gateway(
    gateway: GatewayAddress, device: DeviceKey, script: Script, status: int
) -> None:
    script.upgrade_status = HTTPStatus(status)
    assert is_no_gateway(refusal_of(gateway, device))


def test_redirect_is_not_followed_with_the_token(device: DeviceKey, script: Script) -> None:
    other = Script()
    with scripted_gateway(other) as elsewhere, scripted_gateway(script) as gateway:
        script.upgrade_status = HTTPStatus.TEMPORARY_REDIRECT
        script.headers = {"Location": elsewhere.url}
        assert is_no_gateway(refusal_of(gateway, device))
    assert other.upgrades == []


@contextlib.contextmanager
def raw_server(reply: bytes | None) -> Iterator[GatewayAddress]:
    """A TCP server that reads once, then sends ``reply`` and hangs up, or stays silent (None)."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve_one() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                if reply is None:
                    over.wait(60)
                else:
                    peer.sendall(reply)

        thread = threading.Thread(target=serve_one)
        thread.start()
        try:
            yield GatewayAddress(f"ws://127.0.0.1:{server.getsockname()[1]}", token=TOKEN)
        finally:
            over.set()
            thread.join()


def test_connection_closed_in_the_upgrade_is_unreachable(device: DeviceKey) -> None:
    with raw_server(b"") as address:
        assert type(refusal_of(address, device)) is errors.GatewayUnreachable


def test_something_that_speaks_no_http_is_no_gateway(device: DeviceKey) -> None:
    with raw_server(b"220 mail.example ESMTP\r\n\r\n") as address:
        assert is_no_gateway(refusal_of(address, device))


def test_upgrade_that_is_never_answered_ends_at_the_deadline(device: DeviceKey) -> None:
    with raw_server(None) as address:
        began = time.monotonic()
        assert type(refusal_of(address, device, deadline_s=0.3)) is errors.GatewayUnreachable
        assert time.monotonic() - began < SOON_S


def test_challenge_that_never_comes_ends_at_the_deadline(
    gateway: GatewayAddress, device: DeviceKey, script: Script
) -> None:
    script.challenge = False
    began = time.monotonic()
    refusal = refusal_of(gateway, device, deadline_s=0.3)
    assert type(refusal) is errors.GatewayUnreachable
    assert "no challenge" in str(refusal)
    assert time.monotonic() - began < SOON_S


def test_hello_that_never_comes_ends_at_the_deadline_also_under_a_stream_of_events(
    gateway: GatewayAddress, device: DeviceKey, script: Script
) -> None:
    def chatter(peer: Peer, request: object) -> None:
        while True:
            peer.say({"type": "event", "event": "tick", "payload": {}})

    script.connect = chatter
    began = time.monotonic()
    assert type(refusal_of(gateway, device, deadline_s=0.3)) is errors.GatewayUnreachable
    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize(
    ("error", "close_code", "expected"),
    [
        ({"code": "INVALID_REQUEST", "message": "unauthorized: token"}, 1008, errors.WrongToken),
        ({"code": "INVALID_REQUEST", "message": "protocol mismatch"}, 1002, errors.PermanentGatewayError),
        ({"code": "UNAVAILABLE", "message": "gateway starting"}, 1013, errors.GatewayRestarting),
        ({"code": "NOT_PAIRED", "message": "pairing required"}, 1008, errors.PairingRequired),
    ],
)
def test_refused_connect_says_why(
    gateway: GatewayAddress,
    device: DeviceKey,
    script: Script,
    error: dict[str, str],
    close_code: int,
    expected: type[errors.GatewayError],
) -> None:
    def refuse(peer: Peer, request: Mapping[str, Any]) -> None:
        peer.refuse(request, error)
        peer.websocket.close(close_code, "closed")

    script.connect = refuse
    assert type(refusal_of(gateway, device)) is expected


def test_pairing_names_our_device_where_the_gateway_does_not(
    gateway: GatewayAddress, device: DeviceKey, script: Script
) -> None:
    details = {"requestId": "r-7"}
    script.connect = lambda peer, request: peer.refuse(
        request, {"code": "NOT_PAIRED", "message": "pairing required", "details": details}
    )
    refusal = refusal_of(gateway, device)
    assert isinstance(refusal, errors.PairingRequired)
    assert (refusal.request_id, refusal.device_id) == ("r-7", device.device_id)


def test_close_without_a_word_is_judged_by_its_code(
    gateway: GatewayAddress, device: DeviceKey, script: Script
) -> None:
    script.connect = lambda peer, request: peer.websocket.close(1013, "try later")
    assert type(refusal_of(gateway, device)) is errors.GatewayRestarting


def test_hello_without_admin_scope_is_refused_at_once(
    gateway: GatewayAddress, device: DeviceKey, script: Script
) -> None:
    script.hello = hello_payload(auth={"scopes": ["operator.read"]})
    refusal = refusal_of(gateway, device)
    assert type(refusal) is errors.PermanentGatewayError
    assert "no operator.admin scope" in str(refusal)


def test_a_hello_without_scopes_is_accepted(script: Script, connect: Connect) -> None:
    script.hello = hello_payload(auth=None)
    assert connect().hello.scopes is None


def test_another_greeting_is_no_gateway(gateway: GatewayAddress, device: DeviceKey, script: Script) -> None:
    script.hello = {"type": "welcome"}
    assert is_no_gateway(refusal_of(gateway, device))


def test_untrusted_certificate_is_refused_unless_the_gateway_allows_it(
    device: DeviceKey, script: Script, tmp_path: Path
) -> None:
    with scripted_gateway(script, ssl=self_signed(tmp_path)) as address:
        refusal = refusal_of(address, device)
        assert type(refusal) is errors.PermanentGatewayError
        assert "allow_insecure_tls" in str(refusal)
        lenient = GatewayAddress(address.url, token=TOKEN, allow_insecure_tls=True)
        with GatewayConnection.open(lenient, device, deadline_s=30) as connection:
            content = "x" * 3_000_000
            assert connection.call("set", {"content": content})["params"] == {"content": content}


def test_tls_to_a_plain_port_says_which_scheme_to_write(device: DeviceKey) -> None:
    with raw_server(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") as plain:
        refusal = refusal_of(GatewayAddress(plain.url.replace("ws://", "wss://"), token=TOKEN), device)
    assert type(refusal) is errors.PermanentGatewayError
    assert "write ws://" in str(refusal)


def test_tls_that_is_cut_short_may_pass_and_hints_at_the_scheme(device: DeviceKey) -> None:
    with raw_server(b"") as plain:
        refusal = refusal_of(GatewayAddress(plain.url.replace("ws://", "wss://"), token=TOKEN), device)
    assert type(refusal) is errors.GatewayUnreachable
    assert "needs ws://" in str(refusal)
