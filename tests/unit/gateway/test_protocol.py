"""The protocol's frames: what we send, and that nothing received can break the decoder."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from worker.gateway.device import DeviceKey
from worker.gateway.errors import PermanentGatewayError
from worker.gateway.protocol import (
    Event,
    Hello,
    Response,
    Unreadable,
    connect_params,
    decode,
    encode_request,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FRAME = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["res", "event", "req"]) | JSON,
        "id": st.text() | JSON,
        "ok": st.booleans() | JSON,
        "payload": JSON,
        "error": JSON,
        "event": st.text() | JSON,
    },
)

URL = "ws://gateway.example:18789"


@given(st.text() | st.binary())
def test_no_bytes_break_decoding(frame: str | bytes) -> None:
    assert decode(frame) is None or isinstance(decode(frame), Response | Event | Unreadable)


@given(JSON | FRAME)
def test_no_json_breaks_decoding(message: object) -> None:
    decoded = decode(json.dumps(message))
    if isinstance(decoded, Response):
        assert decoded.payload is None or decoded.error is None
        assert isinstance(decoded.id, str)


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        ("[" * 100_000, None),
        ("SSH-2.0-OpenSSH_9.6", None),
        ('{"type": "res", "ok": tr', None),
        ('{"type": "res", "id": "7", "ok": true, "payload": {"updatedAtMs": NaN}}', "7"),
        ('{"type": "res", "id": "7", "ok": true, "payload": {"size": -Infinity}}', "7"),
        ('{"type": "res", "id": "7", "ok": true, "payload": {"size": ' + "9" * 5000 + "}}", "7"),
        ('{"type": "res", "id": "7", "ok": true, "payload": {"a": ' + "[" * 200 + "]" * 200 + "}}", "7"),
        ('{"type": "res", "id": "7", "ok": true, "payload": {"a": ' + '{"a":' * 200 + "1" + "}" * 202, "7"),
    ],
)
def test_what_cannot_be_read_names_the_call_that_it_answers(frame: str, named: str | None) -> None:
    assert decode(frame) == Unreadable(named)


def test_what_a_gateway_says_of_itself_is_cleaned_and_bounded() -> None:
    hello = Hello.parse(
        {
            "type": "hello-ok",
            "protocol": 4,
            "server": {"version": "2026\x00.9\ud800" + "6" * 1000, "bootId": "b\n" * 1000},
            "features": {"methods": ["m\x1b[2J", *map(str, range(20_000))]},
            "auth": {"scopes": ["s" * 1000]},
            "policy": {"tickIntervalMs": 1, "maxPayload": 10**400},
        },
        URL,
    )
    said = [hello.server_version, hello.boot_id or "", *hello.methods, *(hello.scopes or ())]
    assert all(word.isprintable() and len(word) <= 200 for word in said)
    assert all(word.encode() for word in said)
    assert len(hello.methods) <= 10_000
    assert hello.tick_interval_s == 1.0
    assert hello.max_payload == 25 * 1024 * 1024


@pytest.mark.parametrize(
    ("frame", "decoded"),
    [
        ({"type": "res", "id": "1", "ok": True, "payload": {"a": 1}}, Response("1", payload={"a": 1})),
        ({"type": "res", "id": "1", "ok": True}, Response("1", payload={})),
        ({"type": "res", "id": "1", "ok": False, "error": {"code": "X"}}, Response("1", error={"code": "X"})),
        ({"type": "res", "id": "1", "ok": False}, Response("1", error={})),
        ({"type": "res", "id": "1", "ok": True, "payload": [1]}, Response("1")),
        ({"type": "res", "id": "1", "ok": "yes"}, Response("1")),
        ({"type": "res", "id": 1, "ok": True}, Unreadable(None)),
        ({"type": "event", "event": "tick", "payload": {"ts": 1}}, Event("tick", {"ts": 1})),
        ({"type": "event", "event": "tick"}, Event("tick", {})),
        ({"type": "event"}, Unreadable(None)),
        ({"type": "ping"}, None),
        ([], Unreadable(None)),
    ],
)
def test_frames_are_read_by_shape(frame: object, decoded: Response | Event | Unreadable | None) -> None:
    assert decode(json.dumps(frame)) == decoded


def test_request_is_compact_utf8_with_empty_params_by_default() -> None:
    assert encode_request("7", "health", None) == b'{"type":"req","id":"7","method":"health","params":{}}'
    assert "é".encode() in encode_request("7", "m", {"content": "é"})


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800"])
def test_what_is_not_json_fails_by_method_without_quoting_the_content(value: object) -> None:
    with pytest.raises(PermanentGatewayError, match=r"agents\.files\.set") as caught:
        encode_request("1", "agents.files.set", {"content": "hush", "other": value})
    assert "hush" not in str(caught.value)
    assert caught.value.method == "agents.files.set"


def test_connect_signs_the_challenge_as_version_2() -> None:
    device = DeviceKey.generate()
    params = connect_params(device, "tok", "nonce-1", 1234)
    proof = params["device"]
    signed = (
        f"v2|{device.device_id}|gateway-client|backend|operator|operator.read,operator.write,operator.admin"
        "|1234|tok|nonce-1"
    )
    public = base64.urlsafe_b64decode(proof["publicKey"] + "=")
    signature = base64.urlsafe_b64decode(proof["signature"] + "==")
    Ed25519PublicKey.from_public_bytes(public).verify(signature, signed.encode())
    assert (proof["id"], proof["signedAt"], proof["nonce"]) == (device.device_id, 1234, "nonce-1")
    assert (params["minProtocol"], params["maxProtocol"]) == (3, 4)
    assert params["auth"] == {"token": "tok"}
    assert params["scopes"] == ["operator.read", "operator.write", "operator.admin"]


def test_connect_has_no_property_that_a_release_refuses() -> None:
    params = connect_params(DeviceKey.generate(), None, "n", None)
    assert set(params) == {"minProtocol", "maxProtocol", "client", "role", "scopes", "device"}
    assert set(params["client"]) == {"id", "mode", "version", "platform"}


def test_hello_of_the_newest_release_is_read_in_full() -> None:
    hello = Hello.parse(
        {
            "type": "hello-ok",
            "protocol": 4,
            "server": {"version": "2026.9.6", "bootId": "b1", "connId": "c"},
            "features": {"methods": ["health", 7], "events": []},
            "auth": {"role": "operator", "scopes": ["operator.admin"]},
            "policy": {"maxPayload": 26214400, "tickIntervalMs": 15000},
        },
        URL,
    )
    assert (hello.protocol, hello.server_version, hello.boot_id) == (4, "2026.9.6", "b1")
    assert hello.methods == frozenset({"health"})
    assert hello.scopes == frozenset({"operator.admin"})
    assert (hello.max_payload, hello.tick_interval_s) == (26214400, 15.0)


@given(
    st.fixed_dictionaries(
        {"type": st.just("hello-ok"), "protocol": st.integers(3, 4)},
        optional={"server": JSON, "features": JSON, "auth": JSON, "policy": JSON},
    )
)
def test_hello_with_anything_missing_or_strange_still_has_limits(payload: dict[str, object]) -> None:
    hello = Hello.parse(payload, URL)
    assert hello.max_payload > 0
    assert hello.tick_interval_s > 0


@given(st.floats() | st.integers() | st.booleans() | st.none())
def test_no_strange_limit_breaks_the_hello(value: object) -> None:
    policy = {"maxPayload": value, "tickIntervalMs": value}
    hello = Hello.parse({"type": "hello-ok", "protocol": 3, "policy": policy}, URL)
    assert hello.max_payload > 0
    assert hello.tick_interval_s > 0


@pytest.mark.parametrize("payload", [{}, {"type": "hello-ok"}, {"type": "hi", "protocol": 4}])
def test_another_greeting_is_no_gateway(payload: dict[str, object]) -> None:
    with pytest.raises(PermanentGatewayError, match="does not greet"):
        Hello.parse(payload, URL)
