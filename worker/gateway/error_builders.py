"""Builds each gateway error with its sentence, which is written for an on-call engineer (rules.md 44).

A sentence names the gateway and what the call was about, and says what to do.
"""

from __future__ import annotations

import re
from typing import Any

from worker.gateway import protocol
from worker.gateway.answers import LONGEST_WAIT_S
from worker.gateway.error_payload import ErrorPayload
from worker.gateway.errors import (
    AgentExists,
    AppliedByRestart,
    FileConflict,
    FileRefused,
    GatewayError,
    GatewayRestarting,
    IncludeOwned,
    InvalidConfig,
    PairingRequired,
    PermanentGatewayError,
    RateLimited,
    Refused,
    SendDenied,
    StaleConfig,
    TransientGatewayError,
    Unavailable,
    UnknownAgent,
    UnknownSetting,
    UnsafeFile,
    UnsupportedFile,
    WrongToken,
)
from worker.gateway.includes import WHOLE_FILE


def wrong_token(error: ErrorPayload) -> GatewayError:
    reason = error.detail("authReason")
    if reason.startswith("trusted_proxy") or re.search(r"trusted[_-]proxy", error.message):
        what = (
            "has gateway.auth.mode trusted-proxy, which takes no token but only logins that its own proxy"
            f" vouches for ({reason or error.message}), and we send none: set gateway.auth.mode to token in"
            " its openclaw.json, and gateways.token to gateway.auth.token there"
        )
    elif error.detail_code.startswith("AUTH_PASSWORD") or "password" in error.message:
        what = (
            "wants a password, which we do not send: set gateway.auth.mode to token in its openclaw.json, and"
            " gateways.token to the token there"
        )
    elif error.detail_code in ("AUTH_TOKEN_MISSING", "AUTH_REQUIRED") or "token missing" in error.message:
        what = (
            "wants a token and we have none: set gateways.token of its row to gateway.auth.token of its"
            " openclaw.json (a token in the URL is not used)"
        )
    elif error.detail_code == "AUTH_TOKEN_NOT_CONFIGURED" or "not configured" in error.message:
        what = (
            "has no token configured, so it lets nobody in: set gateway.auth.token in its openclaw.json, and"
            " gateways.token to the same"
        )
    else:
        what = (
            "does not accept our token: set gateways.token of its row to gateway.auth.token of its"
            " openclaw.json"
        )
    return WrongToken(f"{error.gateway} {what}", **error.fields)


def missing_scope(error: ErrorPayload) -> GatewayError:
    scope = error.detail("missingScope") or error.find(r"missing scope:\s*([\w.-]+)") or protocol.ADMIN_SCOPE
    return without_scope(scope, error.gateway, **error.fields)


def without_scope(scope: str, gateway: str, **fields: Any) -> PermanentGatewayError:
    """The error for a connection without ``scope``, also when only the hello shows that it is missing."""
    needs = "provisioning" if fields["method"] == "connect" else fields["method"]
    return PermanentGatewayError(
        f"{gateway} gave our connection no {scope} scope, which {needs} needs: on its machine approve our"
        f" device (`provisioner device show` names it) for role {protocol.ROLE} with that scope, using"
        " `openclaw devices list` and `openclaw devices approve`",
        **fields,
    )


def pairing_required(error: ErrorPayload) -> GatewayError:
    request_id = error.detail("requestId") or None
    device_id = error.detail("deviceId") or None
    device = f"our device {device_id}" if device_id else "our device"
    approve = (
        f"run `openclaw devices approve {request_id}` on its machine (if that request has expired, `openclaw"
        " devices list` there shows the current one)"
    )
    if request_id is None:
        approve = "find it by `openclaw devices list` on its machine and run `openclaw devices approve` there"
    return PairingRequired(
        f"{error.gateway} has not approved {device}: {approve}",
        request_id=request_id,
        device_id=device_id,
        **error.fields,
    )


def device_refused(error: ErrorPayload) -> GatewayError:
    if "expired" in error.message or error.detail_code == "DEVICE_AUTH_SIGNATURE_EXPIRED":
        cure = "its clock and ours differ by minutes, so synchronize both with NTP"
    elif "identity required" in error.message or error.detail_code.endswith("DEVICE_IDENTITY_REQUIRED"):
        cure = "we did send one, so look for a proxy in between that changes frames"
    else:
        cure = (
            "look for a proxy in between that changes frames; if there is none, check GATEWAY_DEVICE_KEY,"
            " then remove our device there and approve it again (`openclaw devices`)"
        )
    return PermanentGatewayError(
        f"{error.gateway} does not accept our device's signature ({error.message}): {cure}", **error.fields
    )


def unsupported_protocol(error: ErrorPayload) -> GatewayError:
    theirs = error.details.get("expectedProtocol")
    version = f"protocol {theirs}" if isinstance(theirs, int) else "another protocol version"
    older = isinstance(theirs, int) and theirs < protocol.MIN_PROTOCOL
    cure = (
        "update OpenClaw there" if older else "update this program, or go back to an OpenClaw that it knows"
    )
    return PermanentGatewayError(
        f"{error.gateway} speaks {version}, we speak {protocol.MIN_PROTOCOL} to {protocol.MAX_PROTOCOL}:"
        f" {cure} (2026.2.12 to 2026.9.6)",
        **error.fields,
    )


def rate_limited(error: ErrorPayload) -> GatewayError:
    after_s = error.retry_after_s
    if after_s is None and (seconds := error.find(r"retry after (\d+(?:\.\d+)?)\s*s")):
        after_s = min(float(seconds), LONGEST_WAIT_S)
    wait = "wait, it does not say for how long" if after_s is None else f"wait {after_s:.0f} s"
    limit = error.detail("limit")
    what = f"takes {error.method} only {limit}" if limit else f"takes no more {error.method} for now"
    return RateLimited(
        f"{error.gateway} {what}: {wait}",
        retry_after_s=after_s,
        **error.fields,
    )


def auth_locked(error: ErrorPayload) -> GatewayError:
    after_s = error.retry_after_s
    wait = "some minutes" if after_s is None else f"{after_s:.0f} s"
    return RateLimited(
        f"{error.gateway} locks our address out for {wait}, the right token too, after too many"
        " wrong ones from it: find the client behind our address that sends a wrong token",
        retry_after_s=after_s,
        **error.fields,
    )


def stale_config(error: ErrorPayload) -> GatewayError:
    return StaleConfig(
        f"the config of {error.gateway} is no longer the one that {error.method} was computed from, so"
        " nothing was written: it must be read again and the change redone",
        retry_after_s=error.retry_after_s,
        **error.fields,
    )


def busy(error: ErrorPayload) -> GatewayError:
    return TransientGatewayError(
        f"{error.gateway} is too busy for {error.method}: it may be sent again in a moment; if this goes on,"
        " look at the load of its machine",
        retry_after_s=error.retry_after_s,
        **error.fields,
    )


def restarting(error: ErrorPayload) -> GatewayError:
    what = "lets nobody in yet" if error.method == "connect" else f"did not do {error.method}"
    return GatewayRestarting(
        f"{error.gateway} is starting or stopping and {what} ({error.message}): if this goes on, look at its"
        " log",
        retry_after_s=error.retry_after_s,
        **error.fields,
    )


def unsupported_file(error: ErrorPayload) -> GatewayError:
    name = error.find(r'unsupported file "([^"]*)"') or error.context.file
    return UnsupportedFile(
        f"the release of {error.gateway} keeps no workspace file {name or 'of that name'}{_for(error)}: that"
        " agent has to do without it, or the gateway needs another OpenClaw release",
        name=name,
        **error.fields,
    )


def unsafe_file(error: ErrorPayload) -> GatewayError:
    name = error.context.file or error.find(r'unsafe workspace file "([^"]*)"')
    return UnsafeFile(
        f"{error.gateway} does not touch {name or 'a workspace file'}{_for(error)} ({error.message}): it is"
        " being replaced at this moment, or it is no plain file",
        name=name,
        **error.fields,
    )


def refused_file(error: ErrorPayload) -> GatewayError:
    why = error.find(r"\((.*)\)$") or error.message
    return FileRefused(
        f"{error.gateway} does not touch {error.context.file or 'a workspace file'}{_for(error)} ({why}): put"
        " a plain file of its own in its place in the agent's workspace there",
        name=error.context.file,
        **error.fields,
    )


_HOST_CURES = {
    "EACCES": "give the user that OpenClaw runs as access to it",
    "EPERM": "give the user that OpenClaw runs as access to it (`lsattr` shows an immutable file)",
    "EROFS": "mount it writable there",
    "ENOSPC": "free space there",
    "EDQUOT": "free space there, or raise the quota",
    "EISDIR": "a folder stands in the place of a file there: move it away",
    "ENOTDIR": "a file stands in the place of a folder there: move it away",
    "EEXIST": "a file stands in the place of a folder there: move it away",
    "ELOOP": "its links lead in a circle there: put a plain file or folder in its place",
    "ENAMETOOLONG": "the path is too long for that machine: shorten gateways.workspace_root",
    "EIO": "its disk is failing or gone: see that machine's system log",
    "ESTALE": "remount its network folder there",
}
_HOST_WORDS = {
    "permission denied": "EACCES",
    "operation not permitted": "EPERM",
    "read-only file system": "EROFS",
    "no space left on device": "ENOSPC",
    "disk quota exceeded": "EDQUOT",
    "is a directory": "EISDIR",
    "not a directory": "ENOTDIR",
    "input/output error": "EIO",
}
"""Messages of the operating system, for releases that leave out the error code."""
_ANY_CODE = rf"\b(?:{'|'.join(_HOST_CURES)})\b"
HOST_REFUSALS = (
    rf"^(?:Error: )?{_ANY_CODE}: |{_ANY_CODE}: [a-z][a-z /-]+, [a-z]+|\b(?:{'|'.join(_HOST_WORDS)})\b"
)
"""Matches, ignoring case, refusals by the operating system of the gateway's machine."""


def refused_by_host(error: ErrorPayload) -> GatewayError:
    """The error for a refusal by the operating system of the gateway's machine, in any release's words."""
    if error.method.startswith("chat."):
        return unavailable(error)  # what stopped an agent's run
    words = next((code for words, code in _HOST_WORDS.items() if words in error.message.lower()), "")
    code = error.find(rf"({_ANY_CODE})") or words
    return PermanentGatewayError(
        f"{error.gateway} cannot do {error.method}{_for(error)} on its machine ({error.message}):"
        f" {_HOST_CURES.get(code, 'see its log')}",
        **error.fields,
    )


def invalid_config(error: ErrorPayload) -> GatewayError:
    if "fix before patching" in error.message:
        return InvalidConfig(
            f"openclaw.json of {error.gateway} is invalid already, so nothing can be changed in it:"
            " run `openclaw doctor` on its machine",
            **error.fields,
        )
    issues = error.config_issues
    what = "; ".join(f"{path}: {message}" if path else message for path, message in issues)
    return InvalidConfig(
        f"{error.gateway} refuses the config change, and nothing was written: correct {what}"
        if what
        else f"{error.gateway} refuses the config change without saying why ({error.message}): see its log",
        issues=issues,
        **error.fields,
    )


def applied_by_restart(error: ErrorPayload) -> GatewayError:
    return AppliedByRestart(
        f"{error.gateway} wrote the config change and restarts to apply it ({error.message})", **error.fields
    )


def send_denied(error: ErrorPayload) -> GatewayError:
    return SendDenied(
        f"{error.gateway} lets nobody write to that session{_for(error)}: session.sendPolicy of its"
        " openclaw.json denies it",
        **error.fields,
    )


def config_locked(error: ErrorPayload) -> GatewayError:
    how = (
        "it is kept elsewhere (OPENCLAW_CONFIG_READONLY=1): edit it in its external deployment source, then"
        " redeploy or restart OpenClaw, or run it without that variable"
    )
    if "NIX" in error.message.upper():
        how = "Nix keeps it (OPENCLAW_NIX_MODE=1): edit programs.openclaw.config in its source and rebuild"
    return PermanentGatewayError(
        f"{error.gateway} lets nobody change its openclaw.json, so its agents cannot be changed from here;"
        f" {how}",
        **error.fields,
    )


def config_not_writable(error: ErrorPayload) -> GatewayError:
    return PermanentGatewayError(
        f"{error.gateway} cannot write its own openclaw.json ({error.message}): let the user that runs it"
        " write that file and the folder it is in",
        **error.fields,
    )


def include_owned(error: ErrorPayload) -> GatewayError:
    where = error.find(r"include-owned config at ([^\s;]+)") or "some part of it"
    return IncludeOwned(unwritten_include(error.gateway, error.method, where), **error.fields)


def unwritten_include(gateway: str, method: str, where: str) -> str:
    """The sentence for a write to the config at ``where``, which included files own."""
    # 2026.9.6 writes entries into a file included alone, but removes none from it.
    alone = " (from 2026.8 on, one included file with nothing beside its $include will do)"
    what = "everything" if where in ("<root>", WHOLE_FILE) else where
    return (
        f"{gateway} does not do {method}, because its openclaw.json has {what} from files that it includes,"
        f" and its release does not write into them: move {what} back into openclaw.json there"
        f"{alone if method == 'config.patch' else ''}"
    )


def unknown_agent(error: ErrorPayload) -> GatewayError:
    agent = error.find(r'[Aa]gent "([^"]*)"') or error.context.agent
    return UnknownAgent(
        f"the roster of {error.gateway} has no agent {agent or 'of that id'}, so {error.method} was not done:"
        " provision the agent first (`provisioner provision`)",
        **error.fields,
    )


def unknown_method(error: ErrorPayload) -> GatewayError:
    return PermanentGatewayError(
        f"the release of {error.gateway} has no method {error.method}: update OpenClaw there", **error.fields
    )


def unknown_setting(error: ErrorPayload) -> GatewayError:
    return UnknownSetting(
        f"the config of {error.gateway} has no such setting ({error.message}): see its documentation",
        **error.fields,
    )


def agent_exists(error: ErrorPayload) -> GatewayError:
    return AgentExists(
        f"the roster of {error.gateway} has the agent already ({error.message})", **error.fields
    )


def file_conflict(error: ErrorPayload) -> GatewayError:
    return FileConflict(
        f"{error.context.file or 'the workspace file'}{_for(error)} changed on {error.gateway} since it was"
        " read, so it was not written: it has to be read again",
        current_hash=error.detail("currentHash") or None,
        **error.fields,
    )


def bad_parameters(error: ErrorPayload) -> GatewayError:
    return PermanentGatewayError(
        f"{error.gateway} does not take {error.method} as we send it ({error.message}): its release differs"
        " from those that we know, so report this with what `provisioner doctor` says",
        **error.fields,
    )


def refused(error: ErrorPayload) -> GatewayError:
    return Refused(f"{error.gateway} refused {error.method}{_for(error)}: {error.message}", **error.fields)


def unavailable(error: ErrorPayload) -> GatewayError:
    return Unavailable(
        f"{error.gateway} cannot do {error.method}{_for(error)} now: {error.message}",
        retry_after_s=error.retry_after_s,
        **error.fields,
    )


def _for(error: ErrorPayload) -> str:
    return f" for agent {error.context.agent}" if error.context.agent else ""
