"""Who may connect, and with which rights (gateways.md 1)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import Target
from tests.conformance.peer import SCOPES, Close, Device, Peer, dial, meet

UI = {"mode": "ui"}


def closed(peer: Peer) -> Close:
    close = peer.closed(within_s=10)
    assert close is not None
    return close


def detail(peer: Peer) -> Any:
    return peer.hello.error.get("details", {}).get("code")


def test_the_challenge_comes_first(target: Target) -> None:
    with dial(target.url) as peer:
        assert peer.challenge["event"] == "connect.challenge"
        assert peer.challenge["payload"]["nonce"]
        assert isinstance(peer.challenge["payload"]["ts"], int)


def test_the_first_request_must_be_connect(target: Target) -> None:
    with dial(target.url) as peer:
        answer = peer.call("health")
        assert answer.error["code"] == "INVALID_REQUEST"
        assert answer.message == "invalid handshake: first request must be connect"
        assert closed(peer).code == 1008


@pytest.mark.parametrize(("text", "code"), [("nonsense", 1000), ('{"type": "x"}', 1008)])
def test_what_is_no_request_closes_without_an_answer(target: Target, text: str, code: int) -> None:
    with dial(target.url) as peer:
        peer.send_text(text)
        assert closed(peer).code == code


def test_connect_refuses_an_unknown_property(target: Target) -> None:
    with meet(target.url, target.token, device=Device(), extra={"bogus": 1}) as peer:
        assert peer.hello.error["code"] == "INVALID_REQUEST"
        assert peer.hello.message == "invalid connect params: at root: unexpected property 'bogus'"
        assert closed(peer).code == 1008


def test_connect_refuses_an_unknown_client_id(target: Target) -> None:
    with meet(target.url, target.token, client={"id": "nonsense"}) as peer:
        assert peer.hello.message.startswith("invalid connect params: at /client/id: must be equal to")
        assert closed(peer).code == 1008


@pytest.mark.parametrize("protocol", [(3, 4), (3, 99), (1, 10)])
def test_a_range_that_holds_the_protocol_connects(target: Target, protocol: tuple[int, int]) -> None:
    with meet(target.url, target.token, protocol=protocol) as peer:
        assert peer.hello.payload["protocol"] == target.expected.protocol


@pytest.mark.parametrize("protocol", [(5, 9), (3, 3)])
def test_a_range_without_the_protocol_is_refused(target: Target, protocol: tuple[int, int]) -> None:
    if protocol[0] <= target.expected.protocol <= protocol[1]:
        pytest.skip("this release speaks it")
    with meet(target.url, target.token, protocol=protocol) as peer:
        assert peer.hello.message == "protocol mismatch"
        details = peer.hello.error["details"]
        assert details["expectedProtocol"] == target.expected.protocol
        if target.expected.explains_errors:
            assert details["code"] == "PROTOCOL_MISMATCH"
            assert (details["clientMinProtocol"], details["clientMaxProtocol"]) == protocol
        close = closed(peer)
        assert (close.code, close.reason) == (1002, "protocol mismatch")


def test_hello_says_what_the_gateway_is(target: Target) -> None:
    with meet(target.url, target.token, device=Device()) as peer:
        hello = peer.hello.payload
        assert hello["type"] == "hello-ok"
        assert hello["server"]["connId"]
        assert ("bootId" in hello["server"]) is target.expected.explains_errors
        assert hello["policy"]["maxPayload"] == target.expected.max_payload
        assert hello["policy"]["tickIntervalMs"] == 30000
        methods = set(hello["features"]["methods"])
        assert {"config.get", "config.patch", "agents.files.set", "sessions.patch", "chat.send"} <= methods
        assert ("cron.scratch.set" in methods) is target.expected.roster_is_map
        assert ("agents.workspace.list" in methods) is target.expected.lists_workspace


@pytest.mark.parametrize("with_device", [True, False])
def test_a_wrong_token_is_refused(target: Target, with_device: bool) -> None:
    with meet(target.url, "wrong", device=Device() if with_device else None) as peer:
        assert peer.hello.error["code"] == "INVALID_REQUEST"
        assert peer.hello.message == "unauthorized: gateway token mismatch (provide gateway auth token)"
        assert target.token not in json.dumps(peer.hello.error)
        if target.expected.explains_admission:
            details = peer.hello.error["details"]
            assert details["code"] == "AUTH_TOKEN_MISMATCH"
            assert details.get("canRetryWithDeviceToken") == (
                with_device if target.expected.advises_retries else None
            )
        assert closed(peer).code == 1008


def test_a_missing_token_is_told_from_a_wrong_one(target: Target) -> None:
    with meet(target.url, None, device=Device()) as peer:
        assert peer.hello.message == "unauthorized: gateway token missing (provide gateway auth token)"
        assert detail(peer) == ("AUTH_TOKEN_MISSING" if target.expected.explains_admission else None)
        assert closed(peer).code == 1008


def test_neither_token_nor_device_is_not_paired(target: Target) -> None:
    with meet(target.url, None) as peer:
        assert peer.hello.error["code"] == "NOT_PAIRED"
        assert peer.hello.message == "device identity required"
        assert closed(peer).code == 1008


def test_a_signed_device_is_granted_what_it_asks(target: Target) -> None:
    with meet(target.url, target.token, device=Device()) as peer:
        assert peer.call("config.get").ok
        assert ("auth" in peer.hello.payload) is target.expected.shows_auth
        if not target.expected.shows_auth:
            return
        assert set(peer.hello.payload["auth"]["scopes"]) == set(SCOPES)
        is_issued = "deviceToken" in peer.hello.payload["auth"]
        assert is_issued is target.expected.issues_device_tokens, "newer ones issue none to a backend"


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        ({"signature": "A" * 86}, "device signature invalid"),
        ({"nonce": "another"}, "device nonce mismatch"),
        ({"id": "0" * 64}, "device identity mismatch"),
        ({"signedAt": 1000}, "device signature expired"),
    ],
)
def test_a_forged_device_is_refused(target: Target, forged: dict[str, Any], message: str) -> None:
    with meet(target.url, target.token, device=Device(), forged=forged) as peer:
        assert peer.hello.message == message
        assert str(detail(peer)).startswith("DEVICE_AUTH_") is target.expected.explains_admission
        assert closed(peer).code == 1008


@pytest.mark.parametrize(
    ("mode", "client"), [("backend", {}), ("ui", UI), ("cli", {"id": "cli", "mode": "cli"})]
)
def test_scopes_without_a_device_depend_on_release_and_mode(
    target: Target, mode: str, client: dict[str, str]
) -> None:
    with meet(target.url, target.token, client=client) as peer:
        answer = peer.call("config.get")
        assert answer.ok is (mode in target.expected.trusted_modes)
        assert answer.ok or answer.message == f"missing scope: {target.expected.config_get_scope}"


def test_no_role_and_scopes_is_no_rights(target: Target) -> None:
    with meet(target.url, target.token, client=UI, scopes=None) as peer:
        assert peer.hello.ok
        assert peer.call("health").ok is not target.expected.health_needs_read
        assert "missing scope" in peer.call("config.get").message


def test_an_origin_is_refused_by_newer_releases(target: Target) -> None:
    with meet(target.url, target.token, device=Device(), origin="http://elsewhere.example") as peer:
        assert peer.hello.ok is not target.expected.refuses_origin
        if not peer.hello.ok:
            assert detail(peer) == (
                "CONTROL_UI_ORIGIN_NOT_ALLOWED" if target.expected.advises_retries else None
            )
            assert closed(peer).code == 1008


@pytest.mark.parametrize("method", ["config.patch", "agents.create", "agents.files.set", "sessions.reset"])
def test_writing_methods_need_admin(target: Target, method: str) -> None:
    with meet(target.url, target.token, device=Device(), scopes=["operator.read", "operator.write"]) as peer:
        answer = peer.call(method, {"bogus": 1})
        assert answer.message == "missing scope: operator.admin"
        if target.expected.explains_errors:
            assert answer.error["code"] == "FORBIDDEN"
            assert answer.error["details"] == {
                "code": "MISSING_SCOPE",
                "missingScope": "operator.admin",
                "requiredScopes": ["operator.admin"],
            }
        else:
            assert answer.error["code"] == "INVALID_REQUEST"


def test_reading_the_config_needs_the_scope_of_the_release(target: Target) -> None:
    with meet(target.url, target.token, device=Device(), scopes=["operator.pairing"]) as peer:
        assert peer.call("config.get").message == f"missing scope: {target.expected.config_get_scope}"
    with meet(target.url, target.token, device=Device(), scopes=[target.expected.config_get_scope]) as peer:
        assert peer.call("config.get").ok


def test_admin_alone_is_enough(target: Target) -> None:
    with meet(target.url, target.token, device=Device(), scopes=["operator.admin"]) as peer:
        assert peer.call("health").ok
        assert peer.call("chat.history", {"sessionKey": "agent:main:main"}).ok


def test_an_unknown_method_is_named_only_to_an_admin(target: Target) -> None:
    with meet(target.url, target.token, device=Device()) as peer:
        assert peer.call("no.such").message == "unknown method: no.such"
    with meet(target.url, target.token, device=Device(), scopes=["operator.read"]) as peer:
        assert peer.call("no.such").message == "missing scope: operator.admin"


def test_a_frame_above_max_payload_closes_with_1009(target: Target) -> None:
    with meet(target.url, target.token) as peer:
        peer.send_text("x" * (target.expected.max_payload + 1))
        assert closed(peer).code == 1009


def test_a_backend_on_the_gateways_own_machine_is_paired_in_silence_or_let_in_without(target: Target) -> None:
    with meet(target.url, target.token, device=(device := Device())) as peer:
        paired = {one["deviceId"] for one in peer.ask("device.pair.list")["paired"]}
    assert (device.id in paired) is target.expected.pairs_local_backends
