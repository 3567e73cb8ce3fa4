"""For each kind of refusal its error, with the sentence for whoever is called at night: which gateway,
what it was about, what to do (rules.md 44)."""

from __future__ import annotations

import re
from typing import Any

from worker.gateway import protocol
from worker.gateway.answers import LONGEST_WAIT_S
from worker.gateway.errors import (
    AgentExists,
    AppliedByRestart,
    AuthLocked,
    BadParameters,
    ConfigLocked,
    DeviceRefused,
    FileConflict,
    FileRefused,
    GatewayBusy,
    GatewayError,
    GatewayRestarting,
    HostRefused,
    IncludeOwned,
    InvalidConfig,
    MissingScope,
    PairingRequired,
    RateLimited,
    Refused,
    SendDenied,
    StaleConfig,
    Unavailable,
    UnknownAgent,
    UnknownMethod,
    UnsafeFile,
    UnsupportedFile,
    UnsupportedProtocol,
    WrongToken,
)
from worker.gateway.said import Said


def wrong_token(said: Said) -> GatewayError:
    reason = said.detail("authReason")
    if reason.startswith("trusted_proxy") or re.search(r"trusted[_-]proxy", said.message):
        what = (
            "has gateway.auth.mode trusted-proxy, which takes no token but only logins that its own proxy"
            f" vouches for ({reason or said.message}), and we send none: set gateway.auth.mode to token in"
            " its openclaw.json, and gateways.token to gateway.auth.token there"
        )
    elif said.detail_code.startswith("AUTH_PASSWORD") or "password" in said.message:
        what = (
            "wants a password, which we do not send: set gateway.auth.mode to token in its openclaw.json, and"
            " gateways.token to the token there"
        )
    elif said.detail_code in ("AUTH_TOKEN_MISSING", "AUTH_REQUIRED") or "token missing" in said.message:
        what = (
            "wants a token and we have none: set gateways.token of its row to gateway.auth.token of its"
            " openclaw.json (a token in the URL is not used)"
        )
    elif said.detail_code == "AUTH_TOKEN_NOT_CONFIGURED" or "not configured" in said.message:
        what = (
            "has no token configured, so it lets nobody in: set gateway.auth.token in its openclaw.json, and"
            " gateways.token to the same"
        )
    else:
        what = (
            "does not accept our token: set gateways.token of its row to gateway.auth.token of its"
            " openclaw.json"
        )
    return WrongToken(f"{said.gateway} {what}", **said.about)


def missing_scope(said: Said) -> GatewayError:
    scope = said.detail("missingScope") or said.find(r"missing scope:\s*([\w.-]+)") or protocol.ADMIN_SCOPE
    return without_scope(scope, said.gateway, **said.about)


def without_scope(scope: str, gateway: str, **about: Any) -> MissingScope:
    """The sentence for a connection without ``scope``, also where only the hello shows it."""
    needs = "provisioning" if about["method"] == "connect" else about["method"]
    return MissingScope(
        f"{gateway} gave our connection no {scope} scope, which {needs} needs: on its machine approve our"
        f" device (`provisioner device show` names it) for role {protocol.ROLE} with that scope, by"
        " `openclaw devices list` and `openclaw devices approve`",
        scope=scope,
        **about,
    )


def pairing_required(said: Said) -> GatewayError:
    request_id = said.detail("requestId") or None
    device_id = said.detail("deviceId") or None
    device = f"our device {device_id}" if device_id else "our device"
    approve = (
        f"run `openclaw devices approve {request_id}` on its machine (`openclaw devices list` there shows the"
        " request, should that one be too old)"
    )
    if request_id is None:
        approve = "find it by `openclaw devices list` on its machine and run `openclaw devices approve` there"
    return PairingRequired(
        f"{said.gateway} has not approved {device}: {approve}",
        request_id=request_id,
        device_id=device_id,
        **said.about,
    )


def device_refused(said: Said) -> GatewayError:
    if "expired" in said.message or said.detail_code == "DEVICE_AUTH_SIGNATURE_EXPIRED":
        cure = "its clock and ours differ by minutes, so set both by NTP"
    elif "identity required" in said.message or said.detail_code.endswith("DEVICE_IDENTITY_REQUIRED"):
        cure = "we did send one, so look for a proxy in between that changes frames"
    else:
        cure = (
            "look for a proxy in between that changes frames; else check GATEWAY_DEVICE_KEY, and remove and"
            " approve our device anew there (`openclaw devices`)"
        )
    return DeviceRefused(
        f"{said.gateway} does not accept our device's signature ({said.message}): {cure}", **said.about
    )


def unsupported_protocol(said: Said) -> GatewayError:
    theirs = said.details.get("expectedProtocol")
    version = f"protocol {theirs}" if isinstance(theirs, int) else "another protocol version"
    older = isinstance(theirs, int) and theirs < protocol.MIN_PROTOCOL
    cure = (
        "update OpenClaw there" if older else "update this program, or go back to an OpenClaw that it knows"
    )
    return UnsupportedProtocol(
        f"{said.gateway} speaks {version}, we speak {protocol.MIN_PROTOCOL} to {protocol.MAX_PROTOCOL}:"
        f" {cure} (2026.2.12 to 2026.9.6)",
        **said.about,
    )


def rate_limited(said: Said) -> GatewayError:
    after_s = said.retry_after_s
    if after_s is None and (seconds := said.find(r"retry after (\d+(?:\.\d+)?)\s*s")):
        after_s = min(float(seconds), LONGEST_WAIT_S)
    wait = "wait, it does not say for how long" if after_s is None else f"wait {after_s:.0f} s"
    limit = said.detail("limit")
    what = f"takes {said.method} only {limit}" if limit else f"takes no more {said.method} for now"
    return RateLimited(
        f"{said.gateway} {what}: {wait}",
        retry_after_s=after_s,
        **said.about,
    )


def auth_locked(said: Said) -> GatewayError:
    after_s = said.retry_after_s
    wait = "some minutes" if after_s is None else f"{after_s:.0f} s"
    return AuthLocked(
        f"{said.gateway} locks our address out for {wait}, the right token too, after too many"
        " wrong ones from it: find the client behind our address that sends a wrong token",
        retry_after_s=after_s,
        **said.about,
    )


def stale_config(said: Said) -> GatewayError:
    return StaleConfig(
        f"the config of {said.gateway} is no longer the one that {said.method} was computed from, so"
        " nothing was written: it has to be read again and the change made anew",
        retry_after_s=said.retry_after_s,
        **said.about,
    )


def busy(said: Said) -> GatewayError:
    return GatewayBusy(
        f"{said.gateway} is too busy for {said.method}: it may be sent again in a moment; if it stays so,"
        " look at the load of its machine",
        retry_after_s=said.retry_after_s,
        **said.about,
    )


def restarting(said: Said) -> GatewayError:
    what = "lets nobody in yet" if said.method == "connect" else f"did not do {said.method}"
    return GatewayRestarting(
        f"{said.gateway} is starting or stopping and {what} ({said.message}): if it stays so, look at its"
        " log",
        retry_after_s=said.retry_after_s,
        **said.about,
    )


def unsupported_file(said: Said) -> GatewayError:
    name = said.find(r'unsupported file "([^"]*)"') or said.asked.file
    return UnsupportedFile(
        f"the release of {said.gateway} keeps no workspace file {name or 'of that name'}{_for(said)}: that"
        " agent has to do without it, or the gateway needs another OpenClaw release",
        name=name,
        **said.about,
    )


def unsafe_file(said: Said) -> GatewayError:
    name = said.asked.file or said.find(r'unsafe workspace file "([^"]*)"')
    return UnsafeFile(
        f"{said.gateway} does not touch {name or 'a workspace file'}{_for(said)} ({said.message}): it is"
        " being replaced at this moment, or it is no plain file",
        name=name,
        **said.about,
    )


def refused_file(said: Said) -> GatewayError:
    why = said.find(r"\((.*)\)$") or said.message
    return FileRefused(
        f"{said.gateway} does not touch {said.asked.file or 'a workspace file'}{_for(said)} ({why}): put a"
        " plain file of its own in its place in the agent's workspace there",
        name=said.asked.file,
        **said.about,
    )


_HOST_CURES = {
    "EACCES": "give the user that OpenClaw runs as the right to it",
    "EPERM": "give the user that OpenClaw runs as the right to it (`lsattr` shows an immutable one)",
    "EROFS": "mount it writable there",
    "ENOSPC": "free space there",
    "EDQUOT": "free space there, or raise the quota",
    "EISDIR": "a folder stands in the place of a file there: move it away",
    "ENOTDIR": "a file stands in the place of a folder there: move it away",
    "EEXIST": "a file stands in the place of a folder there: move it away",
    "ELOOP": "its links lead in a circle there: put a plain file or folder in its place",
    "ENAMETOOLONG": "the path is too long for that machine: shorten gateways.workspace_root",
    "EIO": "its disk fails, or is gone: see that machine's system log",
    "ESTALE": "mount its network folder anew there",
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
"""What the operating system itself says, where a release leaves out the code."""
_ANY_CODE = rf"\b(?:{'|'.join(_HOST_CURES)})\b"
HOST_REFUSALS = (
    rf"^(?:Error: )?{_ANY_CODE}: |{_ANY_CODE}: [a-z][a-z /-]+, [a-z]+|\b(?:{'|'.join(_HOST_WORDS)})\b"
)
"""A pattern, whatever the case."""


def refused_by_host(said: Said) -> GatewayError:
    """What lasts until somebody acts on the gateway's machine, whatever the release calls it."""
    if said.method.startswith("chat."):
        return unavailable(said)  # what stopped an agent's run
    words = next((code for words, code in _HOST_WORDS.items() if words in said.message.lower()), "")
    code = said.find(rf"({_ANY_CODE})") or words
    return HostRefused(
        f"{said.gateway} cannot do {said.method}{_for(said)} on its machine ({said.message}):"
        f" {_HOST_CURES.get(code, 'see its log')}",
        **said.about,
    )


def invalid_config(said: Said) -> GatewayError:
    if "fix before patching" in said.message:
        return InvalidConfig(
            f"openclaw.json of {said.gateway} is invalid already, so nothing can be changed in it:"
            " run `openclaw doctor` on its machine",
            **said.about,
        )
    issues = said.config_issues
    what = "; ".join(f"{path}: {message}" if path else message for path, message in issues)
    return InvalidConfig(
        f"{said.gateway} refuses the config change, and nothing was written: correct {what}"
        if what
        else f"{said.gateway} refuses the config change without saying why ({said.message}): see its log",
        issues=issues,
        **said.about,
    )


def applied_by_restart(said: Said) -> GatewayError:
    return AppliedByRestart(
        f"{said.gateway} wrote the config change and restarts to apply it ({said.message})", **said.about
    )


def send_denied(said: Said) -> GatewayError:
    return SendDenied(
        f"{said.gateway} lets nobody write to that session{_for(said)}: session.sendPolicy of its"
        " openclaw.json denies it",
        **said.about,
    )


def config_locked(said: Said) -> GatewayError:
    how = (
        "it is kept elsewhere (OPENCLAW_CONFIG_READONLY=1): edit it in its external deployment source, then"
        " redeploy or restart OpenClaw, or run it without that variable"
    )
    if "NIX" in said.message.upper():
        how = "Nix keeps it (OPENCLAW_NIX_MODE=1): edit programs.openclaw.config in its source and rebuild"
    return ConfigLocked(
        f"{said.gateway} lets nobody change its openclaw.json, so its agents cannot be changed from here;"
        f" {how}",
        **said.about,
    )


def config_not_writable(said: Said) -> GatewayError:
    return ConfigLocked(
        f"{said.gateway} cannot write its own openclaw.json ({said.message}): let the user that runs it write"
        " that file and the folder it is in",
        **said.about,
    )


def include_owned(said: Said) -> GatewayError:
    where = said.find(r"include-owned config at ([^\s;]+)") or "some part of it"
    return IncludeOwned(unwritten_include(said.gateway, said.method, where), **said.about)


def unwritten_include(gateway: str, method: str, where: str) -> str:
    """The sentence for a write of what stands at ``where``, also if only a reading of the config shows it."""
    # 2026.9.6 writes entries into a file included alone, but removes none from it.
    alone = " (from 2026.8 on, one included file with nothing beside its $include will do)"
    return (
        f"{gateway} does not do {method}, because its openclaw.json has {where} from files that it includes,"
        f" and its release does not write into them: move {where} back into openclaw.json there"
        f"{alone if method == 'config.patch' else ''}"
    )


def unknown_agent(said: Said) -> GatewayError:
    agent = said.find(r'[Aa]gent "([^"]*)"') or said.asked.agent
    return UnknownAgent(
        f"the roster of {said.gateway} has no agent {agent or 'of that id'}, so {said.method} was not done:"
        " provision the agent first (`provisioner provision`)",
        **said.about,
    )


def unknown_method(said: Said) -> GatewayError:
    return UnknownMethod(
        f"the release of {said.gateway} has no method {said.method}: update OpenClaw there", **said.about
    )


def agent_exists(said: Said) -> GatewayError:
    return AgentExists(f"the roster of {said.gateway} has the agent already ({said.message})", **said.about)


def file_conflict(said: Said) -> GatewayError:
    return FileConflict(
        f"{said.asked.file or 'the workspace file'}{_for(said)} changed on {said.gateway} since it was read,"
        " so it was not written: it has to be read again",
        current_hash=said.detail("currentHash") or None,
        **said.about,
    )


def bad_parameters(said: Said) -> GatewayError:
    return BadParameters(
        f"{said.gateway} does not take {said.method} as we send it ({said.message}): its release differs from"
        " those that we know, so report this with what `provisioner doctor` says",
        **said.about,
    )


def refused(said: Said) -> GatewayError:
    return Refused(f"{said.gateway} refused {said.method}{_for(said)}: {said.message}", **said.about)


def unavailable(said: Said) -> GatewayError:
    return Unavailable(
        f"{said.gateway} cannot do {said.method}{_for(said)} now: {said.message}",
        retry_after_s=said.retry_after_s,
        **said.about,
    )


def _for(said: Said) -> str:
    return f" for agent {said.asked.agent}" if said.asked.agent else ""
