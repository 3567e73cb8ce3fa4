"""Maps a gateway's refusals to our errors, for every release from 2026.2.12 to 2026.9.6."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from worker.gateway import error_builders as build
from worker.gateway.error_payload import CallContext, ErrorPayload
from worker.gateway.errors import GatewayError, GatewayRestarting, GatewayUnreachable


def from_response(context: CallContext, error: Mapping[str, Any]) -> GatewayError:
    """The typed error for ``{"ok": false, "error": ...}``, whatever the release.

    The detail code decides if it is a known one; otherwise the message does, or else ``retryable`` and the
    code (rules.md 44). Never raises: an error of unknown shape becomes `Refused`.
    """
    payload = ErrorPayload(context, error)
    builder = _BY_DETAIL.get(payload.detail_code)
    if builder is None:
        builder = next(
            (builder for pattern, builder in _BY_TEXT if pattern.search(payload.message)), _by_code
        )
    return builder(payload)


def from_close(context: CallContext, code: int | None, reason: str) -> GatewayError:
    """The typed error for a connection that closed before the hello (rules.md 44, gateways.md 1, 5).

    ``code``: the close code, which decides before ``reason`` does; None if no close frame came.
    """
    if code == 1002:
        return from_response(context, {"code": "1002", "message": reason or "protocol mismatch"})
    if code in (1003, 1007, 1008, 1009, 1010):
        words = reason or f"closed with code {code} and no reason: see its log"
        return from_response(context, {"code": str(code), "message": words})
    how = "without a close frame" if code in (None, 1006) else f"with code {code} {reason}".rstrip()
    if code in (1012, 1013):
        return GatewayRestarting(
            f"{context.gateway} is starting or stopping and did not let us in yet (it closed {how}): if this"
            " goes on, look at its log",
            method=context.method,
        )
    return GatewayUnreachable(
        f"{context.gateway} closed the connection {how} before it let us in: look at its log, and at any"
        " proxy before it",
        method=context.method,
    )


def _by_code(payload: ErrorPayload) -> GatewayError:
    if payload.code == "NOT_PAIRED":
        return build.pairing_required(payload)
    transient = payload.retryable is True or payload.retry_after_s is not None
    if transient or (payload.retryable is None and payload.code in ("UNAVAILABLE", "AGENT_TIMEOUT")):
        return build.unavailable(payload)
    return build.refused(payload)


_Builder = Callable[[ErrorPayload], GatewayError]

_BY_DETAIL: dict[str, _Builder] = {
    "AUTH_RATE_LIMITED": build.auth_locked,
    "MISSING_SCOPE": build.missing_scope,
    "AUTH_SCOPE_MISMATCH": build.missing_scope,
    "PAIRING_REQUIRED": build.pairing_required,
    "PROTOCOL_MISMATCH": build.unsupported_protocol,
    "UNKNOWN_AGENT_ID": build.unknown_agent,
    "agent_file_conflict": build.file_conflict,
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
        build.wrong_token,
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
        build.device_refused,
    ),
}

# The first match wins. 2026.2.12 sends no detail codes, so these patterns are all that its errors go by.
_BY_TEXT: tuple[tuple[re.Pattern[str], _Builder], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), builder)
    for pattern, builder in (
        (r"too many failed authentication", build.auth_locked),
        (r"^rate limit exceeded", build.rate_limited),
        (r"^unauthorized", build.wrong_token),
        (r"^missing scope:", build.missing_scope),
        (
            r"pairing required|upgrade pending approval|metadata change pending approval",
            build.pairing_required,
        ),
        (r"^device (identity|signature|nonce|public key|auth)", build.device_refused),
        (r"^protocol mismatch", build.unsupported_protocol),
        (r"^config (base hash|changed since)", build.stale_config),
        (r"server is busy", build.busy),
        (r"gateway (is )?(starting|restarting|stopping)|unavailable during gateway", build.restarting),
        (r"send blocked by session policy", build.send_denied),
        (r"persisted and (updated|was accepted)", build.applied_by_restart),
        (r"treats openclaw\.json as immutable|config is (externally )?managed", build.config_locked),
        (r"\b(EROFS|EACCES|EPERM|EBUSY): .*openclaw\.json", build.config_not_writable),
        (r"^unsupported file", build.unsupported_file),
        (r"^unsafe workspace file \"[^\"]*\"$", build.unsafe_file),
        (r"^unsafe workspace file", build.refused_file),
        (r"^invalid config(?!\.)", build.invalid_config),
        (r"would drop agent roster entries", build.refused),
        (r"has no resolvable owner", build.refused),
        (r"flatten \$include-owned|CONFIG_INCLUDE_OWNERSHIP", build.include_owned),
        (r"unknown agent id|agent \"[^\"]*\" (not found|no longer exists)", build.unknown_agent),
        (r"^unknown method", build.unknown_method),
        (r"^config schema path not found", build.unknown_setting),
        (r"^agent \"[^\"]*\" already exists", build.agent_exists),
        (r"^invalid [\w.-]+ params|^invalid handshake", build.bad_parameters),
        (build.HOST_REFUSALS, build.refused_by_host),
    )
)
