"""From what a gateway says to the error that fits, for every release from 2026.2.12 to 2026.9.6."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from worker.gateway.errors import (
    AgentExists,
    AuthLocked,
    BadParameters,
    DeviceRefused,
    FileConflict,
    GatewayBusy,
    GatewayError,
    GatewayRestarting,
    GatewayUnreachable,
    InvalidConfig,
    MissingScope,
    PairingRequired,
    RateLimited,
    Refused,
    StaleConfig,
    Unavailable,
    UnknownAgent,
    UnknownMethod,
    UnsupportedFile,
    UnsupportedProtocol,
    WrongToken,
)


def from_response(method: str, error: Mapping[str, Any]) -> GatewayError:
    """The error of ``{"ok": false, "error": ...}`` as the type that fits, whatever the release.

    Decided by detail code, then by the message where the release sends no detail code, then by
    ``retryable`` and code (behaviour 44). Never raises: an error of unknown shape becomes `Refused`.
    """
    said = _Said(method, error)
    build = _BY_DETAIL.get(said.detail_code)
    if build is None:
        build = next((build for pattern, build in _BY_TEXT if pattern.search(said.message)), _by_code)
    return build(said)


class _Said:
    """A gateway's error object, with every field made safe to read."""

    def __init__(self, method: str, error: object) -> None:
        fields: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
        details = fields.get("details")
        self.method = method
        self.details: Mapping[str, Any] = details if isinstance(details, Mapping) else {}
        self.code = _text(fields.get("code"))
        self.message = _text(fields.get("message")) or "(no message)"
        self.detail_code = _text(self.details.get("code")) or _text(self.details.get("type"))
        retryable = fields.get("retryable")
        self.retryable = retryable if isinstance(retryable, bool) else None
        self.retry_after_s = _seconds(fields.get("retryAfterMs"))

    @property
    def about(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "code": self.code or None,
            "details": self.details,
            "retryable": self.retryable,
        }

    def find(self, pattern: str) -> str | None:
        found = re.search(pattern, self.message)
        return found.group(1) if found else None


def _seconds(milliseconds: object) -> float | None:
    """A time to wait, from nothing to a day; None for what is no such number."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    return min(milliseconds, 86_400_000) / 1000 if milliseconds >= 0 else None


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _wrong_token(said: _Said) -> GatewayError:
    if said.detail_code.startswith("AUTH_PASSWORD") or "password" in said.message:
        cure = "it wants a password; set gateway.auth.mode to token there, and the gateway's token in its row"
    elif said.detail_code in ("AUTH_TOKEN_MISSING", "AUTH_REQUIRED") or "token missing" in said.message:
        cure = "we have none; set the gateway's token in its row (one in the URL is not used)"
    elif said.detail_code == "AUTH_TOKEN_NOT_CONFIGURED" or "not configured" in said.message:
        cure = "it has none configured; set gateway.auth.token there"
    else:
        cure = "correct the token in the gateway's row (gateway.auth.token in its openclaw.json)"
    return WrongToken(f"the gateway does not accept our token: {cure}", **said.about)


def _missing_scope(said: _Said) -> GatewayError:
    scope = _text(said.details.get("missingScope")) or said.find(r"missing scope:\s*([\w.-]+)")
    return missing_scope(scope or "operator.admin", **said.about)


def missing_scope(scope: str, **about: Any) -> MissingScope:
    """The sentence for a connection without ``scope``, also where only the hello shows it."""
    return MissingScope(
        f"the gateway gave this connection no {scope} scope: approve our device there for the role"
        " operator with that scope (`openclaw devices list`, then `openclaw devices approve`)",
        scope=scope,
        **about,
    )


def _pairing_required(said: _Said) -> GatewayError:
    request_id = _text(said.details.get("requestId")) or None
    device_id = _text(said.details.get("deviceId")) or None
    reason = _text(said.details.get("reason"))
    device = f"our device {device_id}" if device_id else "our device"
    return PairingRequired(
        f"the gateway does not know {device}{f' ({reason})' if reason else ''}:"
        f" run `openclaw devices approve{f' {request_id}' if request_id else ''}` on the gateway",
        request_id=request_id,
        device_id=device_id,
        **said.about,
    )


def _device_refused(said: _Said) -> GatewayError:
    if "expired" in said.message or said.detail_code == "DEVICE_AUTH_SIGNATURE_EXPIRED":
        cure = "its clock and ours differ by minutes; set both by NTP"
    elif "identity required" in said.message or said.detail_code.endswith("DEVICE_IDENTITY_REQUIRED"):
        cure = "check that no proxy in between changes frames"
    else:
        cure = "check GATEWAY_DEVICE_KEY, then remove the device there and approve it anew"
    return DeviceRefused(
        f"the gateway does not accept our device's signature ({said.message}): {cure}", **said.about
    )


def _unsupported_protocol(said: _Said) -> GatewayError:
    theirs = said.details.get("expectedProtocol")
    version = f"protocol {theirs}" if isinstance(theirs, int) else "another protocol version"
    return UnsupportedProtocol(
        f"the gateway speaks {version}, we speak 3 to 4: bring the gateway to a release between"
        " 2026.2.12 and 2026.9.6, or this program up to date",
        **said.about,
    )


def _rate_limited(said: _Said) -> GatewayError:
    after_s = said.retry_after_s
    if after_s is None and (seconds := said.find(r"retry after (\d+(?:\.\d+)?)\s*s")):
        after_s = float(seconds)
    wait = "; it does not say for how long" if after_s is None else f"; wait {after_s:.0f} s"
    limit = _text(said.details.get("limit"))
    return RateLimited(
        f"the gateway limits {said.method}{f' to {limit}' if limit else ''}{wait}",
        retry_after_s=after_s,
        **said.about,
    )


def _auth_locked(said: _Said) -> GatewayError:
    after_s = said.retry_after_s
    wait = "some minutes" if after_s is None else f"{after_s:.0f} s"
    return AuthLocked(
        f"the gateway locks our address out for {wait}, after too many wrong tokens from it:"
        " find the client that sends a wrong one",
        retry_after_s=after_s,
        **said.about,
    )


def _stale_config(said: _Said) -> GatewayError:
    return StaleConfig(
        f"the gateway's config is not the one that {said.method} was computed from ({said.message})",
        retry_after_s=said.retry_after_s,
        **said.about,
    )


def _busy(said: _Said) -> GatewayError:
    return GatewayBusy(
        f"the gateway was too busy for {said.method}: it may be sent again in a moment",
        retry_after_s=said.retry_after_s,
        **said.about,
    )


def _restarting(said: _Said) -> GatewayError:
    return GatewayRestarting(
        f"the gateway is starting or stopping, so {said.method} waits ({said.message})",
        retry_after_s=said.retry_after_s,
        **said.about,
    )


def _unsupported_file(said: _Said) -> GatewayError:
    name = said.find(r'unsupported file "([^"]*)"')
    return UnsupportedFile(
        f"this gateway's release keeps no workspace file {name or 'of that name'}", name=name, **said.about
    )


def _raced_file(said: _Said) -> GatewayError:
    # 2026.3.13, where two writes of one file meet; a link out of the workspace gives a reason in brackets.
    return Unavailable(
        f"the gateway saw the file change under its own write ({said.message}): the call may be sent again",
        **said.about,
    )


def _invalid_config(said: _Said) -> GatewayError:
    if "fix before patching" in said.message:
        return InvalidConfig(
            "the gateway's own openclaw.json is invalid, so nothing can be changed in it:"
            " run `openclaw doctor` on the gateway",
            **said.about,
        )
    issues = _listed_issues(said.details.get("issues")) or _written_issues(said.message)
    what = "; ".join(f"{path}: {message}" if path else message for path, message in issues)
    return InvalidConfig(
        f"the gateway refuses the config change: {what or said.message}", issues=issues, **said.about
    )


def _listed_issues(listed: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(listed, list | tuple):
        return ()
    return tuple(
        (_path(issue.get("path")), _text(issue.get("message")) or "(no message)")
        for issue in listed
        if isinstance(issue, Mapping)
    )


def _path(path: object) -> str:
    if isinstance(path, list | tuple):
        return ".".join(str(part) for part in path)
    return _text(path)


def _written_issues(message: str) -> tuple[tuple[str, str], ...]:
    """The issues of ``invalid config: <path>: <message>; <path>: <message> (+2 more issues)``."""
    _, _, text = message.partition("invalid config:")
    text = re.sub(r"\s*\(\+\d+ more issues?\)\s*$", "", text).strip()
    parts = [part.strip() for part in re.split(r";\s+(?=[\w$<\[][\w.\[\]<>$-]*:\s)", text) if part.strip()]
    issues = []
    for part in parts:
        path, found, rest = part.partition(": ")
        is_path = bool(found) and re.fullmatch(r"[\w$<\[][\w.\[\]<>$-]*", path) is not None
        issues.append((path, rest.strip()) if is_path else ("", part))
    return tuple(issues)


def _unknown_agent(said: _Said) -> GatewayError:
    agent = said.find(r'agent "([^"]*)"') or said.find(r'Agent "([^"]*)"')
    return UnknownAgent(
        f"the gateway's roster has no agent {agent or 'of that id'} ({said.method}): provision it first",
        **said.about,
    )


def _unknown_method(said: _Said) -> GatewayError:
    return UnknownMethod(
        f"this gateway's release has no method {said.method}: bring the gateway up to date", **said.about
    )


def _agent_exists(said: _Said) -> GatewayError:
    return AgentExists(f"the gateway's roster already has that agent ({said.message})", **said.about)


def _file_conflict(said: _Said) -> GatewayError:
    return FileConflict(
        "the workspace file changed on the gateway since it was read: read it again",
        current_hash=_text(said.details.get("currentHash")) or None,
        **said.about,
    )


def _bad_parameters(said: _Said) -> GatewayError:
    return BadParameters(f"the gateway does not take these parameters: {said.message}", **said.about)


def _refused(said: _Said) -> GatewayError:
    return Refused(f"the gateway refused {said.method}: {said.message}", **said.about)


def _by_code(said: _Said) -> GatewayError:
    if said.code == "NOT_PAIRED":
        return _pairing_required(said)
    patient = said.retryable is True or said.retry_after_s is not None
    if patient or (said.retryable is None and said.code in ("UNAVAILABLE", "AGENT_TIMEOUT")):
        return Unavailable(
            f"the gateway cannot do {said.method} now: {said.message}",
            retry_after_s=said.retry_after_s,
            **said.about,
        )
    return _refused(said)


_Build = Callable[[_Said], GatewayError]

_BY_DETAIL: dict[str, _Build] = {
    "AUTH_RATE_LIMITED": _auth_locked,
    "MISSING_SCOPE": _missing_scope,
    "AUTH_SCOPE_MISMATCH": _missing_scope,
    "PAIRING_REQUIRED": _pairing_required,
    "PROTOCOL_MISMATCH": _unsupported_protocol,
    "UNKNOWN_AGENT_ID": _unknown_agent,
    "agent_file_conflict": _file_conflict,
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
        _wrong_token,
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
        _device_refused,
    ),
}

# First match wins. 2026.2.12 sends no detail codes at all, so there this is all there is.
_BY_TEXT: tuple[tuple[re.Pattern[str], _Build], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), build)
    for pattern, build in (
        (r"too many failed authentication", _auth_locked),
        (r"^rate limit exceeded", _rate_limited),
        (r"^unauthorized", _wrong_token),
        (r"^missing scope:", _missing_scope),
        (r"pairing required|upgrade pending approval|metadata change pending approval", _pairing_required),
        (r"^device (identity|signature|nonce|public key|auth)", _device_refused),
        (r"^protocol mismatch", _unsupported_protocol),
        (r"^config (base hash|changed since)", _stale_config),
        (r"server is busy", _busy),
        (r"gateway (is )?(starting|restarting|stopping)|unavailable during gateway", _restarting),
        (r"^unsupported file", _unsupported_file),
        (r"^unsafe workspace file \"[^\"]*\"$", _raced_file),
        (r"^invalid config(?!\.)", _invalid_config),
        (r"would drop agent roster entries", _refused),
        (r"unknown agent id|agent \"[^\"]*\" (not found|no longer exists)", _unknown_agent),
        (r"^unknown method", _unknown_method),
        (r"^agent \"[^\"]*\" already exists", _agent_exists),
        (r"^invalid [\w.-]+ params|^invalid handshake", _bad_parameters),
    )
)


def from_close(code: int | None, reason: str, *, method: str = "connect") -> GatewayError:
    """A connection that closed before the hello, by close code first (behaviour 44, gateway.md 1 and 5).

    ``code`` None: no close frame came.
    """
    if code == 1002:
        return from_response(method, {"code": "1002", "message": reason or "protocol mismatch"})
    if code in (1003, 1007, 1008, 1009, 1010):
        words = reason or "no reason given"
        return from_response(method, {"code": str(code), "message": words})
    how = "without a close frame" if code in (None, 1006) else f"with code {code} {reason}".rstrip()
    if code in (1012, 1013):
        return GatewayRestarting(f"the gateway is starting or stopping: it closed {how}", method=method)
    return GatewayUnreachable(
        f"the gateway closed the connection {how} before {method} was done", method=method
    )
