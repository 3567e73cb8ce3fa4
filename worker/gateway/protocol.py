"""Encodes and decodes frames of the gateway protocol, versions 3 and 4, without a socket (gateways.md 1)."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.gateway.device import DeviceKey
from worker.gateway.documents import mapping
from worker.gateway.errors import PermanentGatewayError
from worker.printable import line

MIN_PROTOCOL, MAX_PROTOCOL = 3, 4
ROLE = "operator"
ADMIN_SCOPE = "operator.admin"
SCOPES = ("operator.read", "operator.write", ADMIN_SCOPE)
CLIENT_ID, CLIENT_MODE = "gateway-client", "backend"
CLIENT_VERSION = "0.5.0"

DEFAULT_MAX_PAYLOAD = 25 * 1024 * 1024
DEFAULT_TICK_INTERVAL_S = 30.0
_TICK_INTERVALS_S = (1.0, 300.0)
_DEEPEST = 100
"""No configuration is nested deeper, and Python's own recursion limit is ten times that."""
_LONGEST_NAME = 200
_MOST_NAMES = 10_000
_ID = re.compile(r'"id"\s*:\s*"([0-9]{1,18})"')


@dataclass(frozen=True)
class Response:
    """The answer to the request ``id``: a payload or an error, or neither if its shape is wrong."""

    id: str
    payload: dict[str, Any] | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Unreadable:
    """A frame that does not follow the protocol.

    ``id``: the request that it seems to answer, if it names one.
    """

    id: str | None


@dataclass(frozen=True)
class Event:
    """A frame that the gateway sends unasked: ``tick``, ``shutdown``, ``chat`` and so on."""

    name: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Hello:
    """What a gateway reports about itself when it accepts a connection.

    ``scopes``: the granted scopes; None if the release does not list them. ``max_payload``: the largest frame
    that it accepts, in bytes. ``boot_id``: changes with each start; None up to 2026.3. ``one_session``: all
    its agents share their owner's one main session (session.scope global).
    """

    protocol: int
    server_version: str
    boot_id: str | None
    methods: frozenset[str]
    scopes: frozenset[str] | None
    max_payload: int
    tick_interval_s: float
    policy: Mapping[str, Any] = field(default_factory=dict, repr=False)
    one_session: bool = False

    @classmethod
    def parse(cls, payload: Mapping[str, Any], url: str) -> Hello:
        """Parse the answer to ``connect`` at ``url``. Raises `PermanentGatewayError` if it is no hello."""
        protocol = payload.get("protocol")
        if payload.get("type") != "hello-ok" or not isinstance(protocol, int) or isinstance(protocol, bool):
            raise PermanentGatewayError(
                f"what answers at {url} does not greet as an OpenClaw gateway does: check host and port in"
                " gateways.url",
                method="connect",
            )
        server, policy = mapping(payload.get("server")), mapping(payload.get("policy"))
        scopes = mapping(payload.get("auth")).get("scopes")
        sessions = mapping(mapping(payload.get("snapshot")).get("sessionDefaults"))
        version, boot_id = server.get("version"), server.get("bootId")
        tick_s = (_positive(policy.get("tickIntervalMs")) or DEFAULT_TICK_INTERVAL_S * 1000) / 1000
        return cls(
            protocol=protocol,
            server_version=_name(version) if isinstance(version, str) and version else "unknown",
            boot_id=_name(boot_id) if isinstance(boot_id, str) else None,
            methods=frozenset(_strings(mapping(payload.get("features")).get("methods"))),
            scopes=frozenset(_strings(scopes)) if isinstance(scopes, list) else None,
            max_payload=int(_positive(policy.get("maxPayload")) or DEFAULT_MAX_PAYLOAD),
            tick_interval_s=min(max(tick_s, _TICK_INTERVALS_S[0]), _TICK_INTERVALS_S[1]),
            policy=policy,
            one_session=sessions.get("scope") == "global" or sessions.get("mainSessionKey") == "global",
        )


def connect_params(
    device: DeviceKey, token: str | None, nonce: str, challenged_at_ms: int | None
) -> dict[str, Any]:
    """The parameters of ``connect``, in the one form for which every release grants full rights.

    ``challenged_at_ms``: the challenge's own time. Signing with it keeps our clock out of the signature's
    age, which may be 10 minutes up to 2026.3 and 2 minutes on the newest.
    """
    signed_at = challenged_at_ms if challenged_at_ms is not None else int(time.time() * 1000)
    signed = "|".join(
        (
            "v2",
            device.device_id,
            CLIENT_ID,
            CLIENT_MODE,
            ROLE,
            ",".join(SCOPES),
            str(signed_at),
            token or "",
            nonce,
        )
    )
    return {
        "minProtocol": MIN_PROTOCOL,
        "maxProtocol": MAX_PROTOCOL,
        "client": {
            "id": CLIENT_ID,
            "mode": CLIENT_MODE,
            "version": CLIENT_VERSION,
            "platform": sys.platform,
        },
        "role": ROLE,
        "scopes": list(SCOPES),
        **({"auth": {"token": token}} if token else {}),
        "device": {
            "id": device.device_id,
            "publicKey": device.public_key,
            "signature": device.sign(signed),
            "signedAt": signed_at,
            "nonce": nonce,
        },
    }


def encode_request(request_id: str, method: str, params: Mapping[str, Any] | None) -> bytes:
    """A request frame. Raises `PermanentGatewayError` if ``params`` cannot be written as JSON."""
    frame = {"type": "req", "id": request_id, "method": method, "params": params or {}}
    try:
        return json.dumps(frame, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        # The error itself may quote the content, which may hold a token.
        raise PermanentGatewayError(
            f"the parameters of {method} cannot be written as JSON ({type(error).__name__})", method=method
        ) from None


def decode(frame: str | bytes) -> Response | Event | Unreadable | None:
    """Decode a frame from the gateway; None for a type of frame that we do not know and skip."""
    try:
        message = json.loads(frame, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return Unreadable(_id_in(frame))
    if not isinstance(message, dict) or _too_deep(message):
        return Unreadable(_id_in(frame))
    match message.get("type"):
        case "res" if isinstance(message.get("id"), str):
            return _response(message)
        case "event" if isinstance(message.get("event"), str):
            return Event(message["event"], mapping(message.get("payload")))
        case "res" | "event":
            return Unreadable(None)
        case _:
            return None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _too_deep(message: dict[str, Any]) -> bool:
    level: list[Any] = [message]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


def _id_in(frame: str | bytes) -> str | None:
    """The id in a frame that cannot be parsed; gateways write it near the start."""
    start = frame[:300]
    found = _ID.search(start if isinstance(start, str) else start.decode("latin-1"))
    return found.group(1) if found else None


def _response(message: dict[str, Any]) -> Response:
    ok, payload, error = message.get("ok"), message.get("payload"), message.get("error")
    if ok is True and (payload is None or isinstance(payload, dict)):
        return Response(message["id"], payload=payload or {})
    if ok is False:
        return Response(message["id"], error=mapping(error))
    return Response(message["id"])


def _strings(value: object) -> list[str]:
    given = value[:_MOST_NAMES] if isinstance(value, list) else []
    return [_name(item) for item in given if isinstance(item, str)]


def _name(value: str) -> str:
    return line(value, _LONGEST_NAME)


def _positive(value: object) -> float | None:
    """``value`` if it can serve as a limit, else None: a gateway may send anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 1 <= value <= 1e12 else None
