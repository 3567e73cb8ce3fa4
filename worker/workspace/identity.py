"""An agent's identity on its gateway, all derived from ids: session key, OpenClaw id and workspace folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, cast
from uuid import UUID

from worker.errors import PermanentError

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_DERIVED = re.compile(rf"(?P<role>mc|lead|mc-gateway)-(?P<key>{_UUID})")
_SESSION_KEY = re.compile(r"agent:(?P<id>[A-Za-z0-9][A-Za-z0-9_-]{0,63}):[^\s:]+(?::[^\s:]+)*")

_VARIABLE = re.compile(r"\$\{[A-Z_][A-Z0-9_]*\}")


def slug(text: str) -> str:
    """``text`` in lower case, with each run of characters other than a-z and 0-9 replaced by one ``-``.

    Raises PermanentError if nothing is left: there is no invented fallback (rules.md 3).
    """
    result = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not result:
        raise PermanentError(f"{text[:80]!r} has no Latin letter or digit to make a folder name from")
    return result


def session_key(agent_id: UUID | str, board_id: UUID | str | None, is_board_lead: bool) -> str:
    """The key of a board agent's main session (rules.md 1)."""
    if is_board_lead and board_id:
        return f"agent:lead-{board_id}:main"
    return f"agent:mc-{agent_id}:main"


def main_session_key(gateway_id: UUID | str) -> str:
    """The key of the gateway-main agent's session (rules.md 2)."""
    return f"agent:mc-gateway-{gateway_id}:main"


def session_key_of(
    agent_id: UUID | str, board_id: UUID | str | None, is_board_lead: bool, gateway_id: UUID | str
) -> str:
    """The key of any agent's main session. An agent without a board is its gateway's main agent."""
    if board_id is None:
        return main_session_key(gateway_id)
    return session_key(agent_id, board_id, is_board_lead)


def openclaw_id(session_key: str) -> str:
    """The agent's id on its gateway: the second part of its session key (rules.md 3).

    Raises PermanentError if the key is not ``agent:<id>:<rest>``.
    """
    match = _SESSION_KEY.fullmatch(session_key)
    if match is None:
        raise PermanentError(
            f"session key {session_key[:80]!r} is not agent:<id>:main: provision the agent again"
        )
    return match["id"]


@dataclass(frozen=True)
class DerivedId:
    """An OpenClaw id that is derived from a UUID.

    ``role``: ``mc`` (a member, from its own id), ``lead`` (from its board's) or ``mc-gateway`` (a main agent,
    from its gateway's).
    """

    role: Literal["mc", "lead", "mc-gateway"]
    key: UUID


def derived_id(openclaw_id: str) -> DerivedId | None:
    """What an OpenClaw id was derived from; None if a person chose it (rules.md 1, 2)."""
    match = _DERIVED.fullmatch(openclaw_id)
    return DerivedId(cast(Any, match["role"]), UUID(match["key"])) if match else None


def derived_workspace_path(workspace_root: str, openclaw_id: str) -> str | None:
    """The folder of an agent whose OpenClaw id is derived from a UUID (rules.md 4).

    None for any other id, and for a blank root.
    """
    made, root = derived_id(openclaw_id), workspace_root.strip()
    if made is None or not root:
        return None
    return (
        main_workspace_path(root, made.key)
        if made.role == "mc-gateway"
        else workspace_path(root, openclaw_id)
    )


def workspace_path(workspace_root: str, openclaw_id: str, *, gateway: str = "") -> str:
    """The agent's folder on the gateway's machine (rules.md 4). The gateway resolves a leading ``~``.

    ``gateway``: the gateway's name, for the error. Raises PermanentError if the root is blank, or if the id
    has no letter or digit.
    """
    return f"{_root(workspace_root, gateway)}/workspace-{slug(openclaw_id)}"


def main_workspace_path(workspace_root: str, gateway_id: UUID | str, *, gateway: str = "") -> str:
    """The gateway-main agent's folder, from its gateway's id: its OpenClaw id once changed (rules.md 2)."""
    return f"{_root(workspace_root, gateway)}/workspace-gateway-{gateway_id}"


def plain_path(path: str, gateway: str) -> str:
    """Return ``path`` unchanged. Raises PermanentError if it contains a variable.

    The gateway would replace the variable by its value on the gateway's host, which is unknown here.
    """
    variable = _VARIABLE.search(path)
    if variable is not None:
        raise PermanentError(
            f"gateway {gateway!r} has {variable[0]} in its workspace_root, which OpenClaw takes for a"
            " variable of its host: write the folder's own path"
        )
    return path


def _root(workspace_root: str, gateway: str) -> str:
    root = workspace_root.strip()
    if not root:
        named = f"gateway {gateway!r}" if gateway else "the gateway"
        raise PermanentError(f"{named} has no workspace_root: set it, for example to ~/.openclaw")
    return root.rstrip("/")
