"""Decides who may connect, and with which scopes (gateways.md 1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from worker.lab.simulator.params import Shape
from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.release import MODES, Release

CLIENT_IDS = frozenset(
    [
        "webchat-ui",
        "openclaw-control-ui",
        "openclaw-tui",
        "webchat",
        "cli",
        "gateway-client",
        "openclaw-macos",
        "openclaw-ios",
        "openclaw-android",
        "node-host",
        "test",
        "fingerprint",
        "openclaw-probe",
    ]
)

_CONNECT = Shape(
    required={"minProtocol": "integer", "maxProtocol": "integer", "client": "object"},
    optional={
        "caps": "array",
        "commands": "array",
        "permissions": "object",
        "pathEnv": "string",
        "role": "text",
        "scopes": "array",
        "device": "object",
        "auth": "object",
        "locale": "string",
        "userAgent": "string",
    },
)
_CLIENT = Shape(
    required={"id": "string", "version": "text", "platform": "text", "mode": "string"},
    optional={
        "displayName": "text",
        "deviceFamily": "text",
        "modelIdentifier": "text",
        "instanceId": "text",
    },
)
_AUTH = Shape(optional={"token": "string", "password": "string", "deviceToken": "string"})


@dataclass(frozen=True, slots=True)
class Grant:
    """What a connection may do. ``device_id`` is None if the client sent no device."""

    role: str
    scopes: tuple[str, ...]
    device_id: str | None
    mode: str

    def allows(self, scope: str | None) -> bool:
        """Whether ``scope`` is granted; admin implies all, and write implies read."""
        held = set(self.scopes)
        if scope is None or "operator.admin" in held or scope in held:
            return True
        return scope == "operator.read" and "operator.write" in held


class HandshakeRefusal(Refusal):
    """A refused ``connect``: the error answer, then a close with ``close_code`` and ``close_reason``."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "INVALID_REQUEST",
        details: JSON | None = None,
        close_code: int = 1008,
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.close_code = close_code
        self.close_reason = message.encode()[:120].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class Challenge:
    """The first frame that the gateway sends. ``ts``: Unix time in milliseconds."""

    nonce: str
    ts: int


def grant_for(
    params: Mapping[str, Any],
    *,
    release: Release,
    token: str,
    challenge: Challenge,
    now_ms: int,
    origin: str | None,
) -> Grant:
    """The grant for a ``connect`` request. Raises `HandshakeRefusal`."""
    _check_shape(params, release)
    _check_protocol(params, release)
    client: JSON = params["client"]
    _check_origin(client, origin, release)
    role = params.get("role", "operator")
    asked = tuple(str(scope) for scope in params.get("scopes", []))
    offered: JSON = params.get("auth", {})
    device: JSON | None = params.get("device")
    if device is not None:
        signed = (client, role, asked, offered.get("token", ""))
        _check_device(device, signed, release=release, challenge=challenge, now_ms=now_ms)
    elif not offered.get("token"):
        raise _refused(release, "device identity required", "DEVICE_IDENTITY_REQUIRED", code="NOT_PAIRED")
    if not offered.get("token"):
        raise _missing_token(release)
    if not hmac.compare_digest(str(offered.get("token", "")).encode(), token.encode()):
        raise _wrong_token(release, has_device=device is not None)
    if device is None and client["mode"] not in release.trusted_modes:
        asked = ()
    return Grant(role, asked, str(device["id"]) if device is not None else None, str(client["mode"]))


def _check_shape(params: Mapping[str, Any], release: Release) -> None:
    no_fewer = "must not" if release.explains_errors else "must NOT"
    found = _CONNECT.faults(params, no_fewer=no_fewer)
    if not found:
        found = _CLIENT.faults(params["client"], at="/client", no_fewer=no_fewer)
        found += _AUTH.faults(params.get("auth", {}), at="/auth", no_fewer=no_fewer)
        if "device" in params:
            found += _device_shape(release).faults(params["device"], at="/device", no_fewer=no_fewer)
    if not found:
        for name, known in (("id", CLIENT_IDS), ("mode", MODES)):
            if params["client"][name] not in known:
                found += _not_listed(f"/client/{name}", release)
    if found:
        raise HandshakeRefusal(f"invalid connect params: {'; '.join(found)}")


def _device_shape(release: Release) -> Shape:
    if release.explains_errors:
        nonce_required: Mapping[str, Any] = {"nonce": "text"}
        return Shape(
            required={
                "id": "text",
                "publicKey": "text",
                "signature": "text",
                "signedAt": "integer",
                **nonce_required,
            }
        )
    return Shape(
        required={"id": "text", "publicKey": "text", "signature": "text", "signedAt": "integer"},
        optional={"nonce": "text"},
    )


def _not_listed(at: str, release: Release) -> list[str]:
    if release.explains_errors:
        return [f"at {at}: must be equal to one of the allowed values"]
    return [f"at {at}: must be equal to constant", f"at {at}: must match a schema in anyOf"]


def _check_protocol(params: Mapping[str, Any], release: Release) -> None:
    low, high = params["minProtocol"], params["maxProtocol"]
    if low <= release.protocol <= high:
        return
    details: JSON = {"expectedProtocol": release.protocol}
    if release.explains_errors:
        details = {
            "code": "PROTOCOL_MISMATCH",
            "clientMinProtocol": low,
            "clientMaxProtocol": high,
            **details,
            "minimumProbeProtocol": 3,
        }
    raise HandshakeRefusal("protocol mismatch", details=details, close_code=1002)


def _check_origin(client: Mapping[str, Any], origin: str | None, release: Release) -> None:
    is_browser = client["id"] == "openclaw-control-ui"
    if not is_browser and (origin is None or not release.refuses_origin):
        return
    message = (
        "origin not allowed (open the Control UI from the gateway host or allow it in "
        "gateway.controlUi.allowedOrigins)"
    )
    if not release.advises_retries:
        raise HandshakeRefusal(message)
    raise _refused(
        release,
        message,
        "CONTROL_UI_ORIGIN_NOT_ALLOWED",
        reason="origin not allowed" if origin else "origin missing or invalid",
    )


def _check_device(
    device: Mapping[str, Any],
    signed: tuple[JSON, str, tuple[str, ...], str],
    *,
    release: Release,
    challenge: Challenge,
    now_ms: int,
) -> None:
    key = _decoded(str(device["publicKey"]))
    if hashlib.sha256(key).hexdigest() != device["id"]:
        raise _refused(
            release,
            "device identity mismatch",
            "DEVICE_AUTH_DEVICE_ID_MISMATCH",
            reason="device-id-mismatch",
        )
    if abs(now_ms - device["signedAt"]) > release.signature_skew_ms:
        raise _refused(
            release,
            "device signature expired",
            "DEVICE_AUTH_SIGNATURE_EXPIRED",
            reason="device-signature-stale",
        )
    if device.get("nonce", challenge.nonce) != challenge.nonce:
        raise _refused(
            release, "device nonce mismatch", "DEVICE_AUTH_NONCE_MISMATCH", reason="device-nonce-mismatch"
        )
    if not any(_verified(key, text, str(device["signature"])) for text in _payloads(device, signed, release)):
        raise _refused(
            release, "device signature invalid", "DEVICE_AUTH_SIGNATURE_INVALID", reason="device-signature"
        )


def _payloads(
    device: Mapping[str, Any], signed: tuple[JSON, str, tuple[str, ...], str], release: Release
) -> list[str]:
    client, role, scopes, token = signed
    fields = [
        device["id"],
        client["id"],
        client["mode"],
        role,
        ",".join(scopes),
        str(device["signedAt"]),
        token,
    ]
    if "nonce" not in device:
        return ["|".join(["v1", *fields])]
    fields.append(device["nonce"])
    payloads = ["|".join(["v2", *fields])]
    if release.protocol >= 4:
        family = str(client.get("deviceFamily", ""))
        payloads.append("|".join(["v3", *fields, str(client["platform"]).lower(), family.lower()]))
    return payloads


def _verified(key: bytes, payload: str, signature: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(_decoded(signature), payload.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def _missing_token(release: Release) -> HandshakeRefusal:
    return _refused(
        release,
        "unauthorized: gateway token missing (provide gateway auth token)",
        "AUTH_TOKEN_MISSING",
        **_advice(release, "token_missing", "update_auth_configuration", can_retry=False),
    )


def _wrong_token(release: Release, *, has_device: bool) -> HandshakeRefusal:
    return _refused(
        release,
        "unauthorized: gateway token mismatch (provide gateway auth token)",
        "AUTH_TOKEN_MISMATCH",
        **_advice(
            release,
            "token_mismatch",
            "retry_with_device_token" if has_device else "update_auth_credentials",
            can_retry=has_device,
        ),
    )


def _advice(release: Release, reason: str, step: str, *, can_retry: bool) -> JSON:
    if not release.advises_retries:
        return {}
    return {"authReason": reason, "canRetryWithDeviceToken": can_retry, "recommendedNextStep": step}


def _refused(
    release: Release, message: str, detail: str, *, code: str = "INVALID_REQUEST", **more: object
) -> HandshakeRefusal:
    details = {"code": detail, **more} if release.explains_admission else None
    return HandshakeRefusal(message, code=code, details=details)
