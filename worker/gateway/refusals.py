"""From what a gateway says to the error that fits, for every release from 2026.2.12 to 2026.9.6."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from worker.gateway import sentences as tell
from worker.gateway.error_payload import CallContext, ErrorPayload
from worker.gateway.errors import GatewayError, GatewayRestarting, GatewayUnreachable


def from_response(context: CallContext, error: Mapping[str, Any]) -> GatewayError:
    """The error of ``{"ok": false, "error": ...}`` as the type that fits, whatever the release.

    Decided by detail code, then by the message where the release sends no detail code, then by
    ``retryable`` and code (rules.md 44). Never raises: an error of unknown shape becomes `Refused`.
    """
    payload = ErrorPayload(context, error)
    build = _BY_DETAIL.get(payload.detail_code)
    if build is None:
        build = next((build for pattern, build in _BY_TEXT if pattern.search(payload.message)), _by_code)
    return build(payload)


def from_close(context: CallContext, code: int | None, reason: str) -> GatewayError:
    """A connection that closed before the hello, by close code first (rules.md 44, gateways.md 1, 5).

    ``code`` None: no close frame came.
    """
    if code == 1002:
        return from_response(context, {"code": "1002", "message": reason or "protocol mismatch"})
    if code in (1003, 1007, 1008, 1009, 1010):
        words = reason or f"closed with code {code} and no reason: see its log"
        return from_response(context, {"code": str(code), "message": words})
    how = "without a close frame" if code in (None, 1006) else f"with code {code} {reason}".rstrip()
    if code in (1012, 1013):
        return GatewayRestarting(
            f"{context.gateway} is starting or stopping and let us not in yet (it closed {how}): if it stays"
            " so, look at its log",
            method=context.method,
        )
    return GatewayUnreachable(
        f"{context.gateway} closed the connection {how} before it let us in: look at its log, and at any"
        " proxy before it",
        method=context.method,
    )


def _by_code(payload: ErrorPayload) -> GatewayError:
    if payload.code == "NOT_PAIRED":
        return tell.pairing_required(payload)
    patient = payload.retryable is True or payload.retry_after_s is not None
    if patient or (payload.retryable is None and payload.code in ("UNAVAILABLE", "AGENT_TIMEOUT")):
        return tell.unavailable(payload)
    return tell.refused(payload)


_Build = Callable[[ErrorPayload], GatewayError]

_BY_DETAIL: dict[str, _Build] = {
    "AUTH_RATE_LIMITED": tell.auth_locked,
    "MISSING_SCOPE": tell.missing_scope,
    "AUTH_SCOPE_MISMATCH": tell.missing_scope,
    "PAIRING_REQUIRED": tell.pairing_required,
    "PROTOCOL_MISMATCH": tell.unsupported_protocol,
    "UNKNOWN_AGENT_ID": tell.unknown_agent,
    "agent_file_conflict": tell.file_conflict,
    **dict.fromkeys(
        (
            "AUTH_REQUIRED",
            "AUTH_UNAUTHORIZED",
            "AUTH_TOKEN_MISSING",
            "AUTH_TOKEN_MISMATCH",
            "AUTH_TOKEN_NOT_CONFIGURED",
            "AUTH_PASSWORD_MISSING",
            "AUTH_PASSWORD_MISMATCH",
            "AUTH_PASSWORD_NOT_CONFIGURED",
            "AUTH_BOOTSTRAP_TOKEN_INVALID",
            "AUTH_DEVICE_TOKEN_MISMATCH",
        ),
        tell.wrong_token,
    ),
    **dict.fromkeys(
        (
            "CONTROL_UI_DEVICE_IDENTITY_REQUIRED",
            "DEVICE_IDENTITY_REQUIRED",
            "DEVICE_AUTH_INVALID",
            "DEVICE_AUTH_DEVICE_ID_MISMATCH",
            "DEVICE_AUTH_SIGNATURE_EXPIRED",
            "DEVICE_AUTH_NONCE_REQUIRED",
            "DEVICE_AUTH_NONCE_MISMATCH",
            "DEVICE_AUTH_SIGNATURE_INVALID",
            "DEVICE_AUTH_PUBLIC_KEY_INVALID",
        ),
        tell.device_refused,
    ),
}

# First match wins. 2026.2.12 sends no detail codes at all, so there this is all there is.
_BY_TEXT: tuple[tuple[re.Pattern[str], _Build], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), build)
    for pattern, build in (
        (r"too many failed authentication", tell.auth_locked),
        (r"^rate limit exceeded", tell.rate_limited),
        (r"^unauthorized", tell.wrong_token),
        (r"^missing scope:", tell.missing_scope),
        (
            r"pairing required|upgrade pending approval|metadata change pending approval",
            tell.pairing_required,
        ),
        (r"^device (identity|signature|nonce|public key|auth)", tell.device_refused),
        (r"^protocol mismatch", tell.unsupported_protocol),
        (r"^config (base hash|changed since)", tell.stale_config),
        (r"server is busy", tell.busy),
        (r"gateway (is )?(starting|restarting|stopping)|unavailable during gateway", tell.restarting),
        (r"send blocked by session policy", tell.send_denied),
        (r"persisted and (updated|was accepted)", tell.applied_by_restart),
        (r"treats openclaw\.json as immutable|config is (externally )?managed", tell.config_locked),
        (r"\b(EROFS|EACCES|EPERM|EBUSY): .*openclaw\.json", tell.config_not_writable),
        (r"^unsupported file", tell.unsupported_file),
        (r"^unsafe workspace file \"[^\"]*\"$", tell.unsafe_file),
        (r"^unsafe workspace file", tell.refused_file),
        (r"^invalid config(?!\.)", tell.invalid_config),
        (r"would drop agent roster entries", tell.refused),
        (r"has no resolvable owner", tell.refused),
        (r"flatten \$include-owned|CONFIG_INCLUDE_OWNERSHIP", tell.include_owned),
        (r"unknown agent id|agent \"[^\"]*\" (not found|no longer exists)", tell.unknown_agent),
        (r"^unknown method", tell.unknown_method),
        (r"^agent \"[^\"]*\" already exists", tell.agent_exists),
        (r"^invalid [\w.-]+ params|^invalid handshake", tell.bad_parameters),
        (tell.HOST_REFUSALS, tell.refused_by_host),
    )
)
