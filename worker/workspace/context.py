"""Builds a template's context, a flat dictionary of strings, from plain facts (rules.md 10, 11)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from worker.errors import PermanentError
from worker.workspace.display_text import clean, one_line
from worker.workspace.identity import main_session_key, openclaw_id, session_key, workspace_path
from worker.workspace.tokens import PLACEHOLDER

PROFILE_DEFAULTS: Mapping[str, str] = {
    "role": "Generalist",
    "communication_style": "direct, concise, practical",
    "emoji": ":gear:",
    "autonomy_level": "",
    "verbosity": "",
    "output_format": "",
    "update_cadence": "",
    "purpose": "",
    "personality": "",
    "custom_instructions": "",
}

_SHELL_SAFE_URL = re.compile(r"[A-Za-z0-9._~:/\[\]%+,=-]+")


@dataclass(frozen=True)
class AgentFacts:
    """A row of ``agents`` as plain values. ``identity_profile``: whatever JSON the row holds;
    ``session_key``, ``workspace_path``: of an agent that was adopted, whose place follows from no id
    (rules.md 48)."""

    id: UUID | str
    name: str
    is_board_lead: bool = False
    identity_profile: Any = None
    identity_template: str | None = None
    soul_template: str | None = None
    heartbeat_config: Any = None
    session_key: str | None = None
    workspace_path: str | None = None


@dataclass(frozen=True)
class BoardFacts:
    """A row of ``boards``. ``success_metrics``: whatever JSON the row holds."""

    id: UUID | str
    name: str
    board_type: str = ""
    objective: str | None = None
    success_metrics: Any = None
    target_date: date | None = None
    goal_confirmed: bool = False


@dataclass(frozen=True)
class GatewayFacts:
    """A row of ``gateways``, without its token."""

    id: UUID | str
    name: str
    url: str
    workspace_root: str


@dataclass(frozen=True)
class UserFacts:
    """The person whom an agent serves: the request's, or else the organization's owner (rules.md 13)."""

    name: str | None = None
    preferred_name: str | None = None
    pronouns: str | None = None
    timezone: str | None = None
    notes: str | None = None
    context: str | None = None


def board_agent_context(
    agent: AgentFacts, board: BoardFacts, gateway: GatewayFacts, user: UserFacts | None, base_url: str
) -> dict[str, str]:
    """The context of a board agent, with the placeholder as its ``auth_token`` (rules.md 10).

    Every value is cleaned. Raises PermanentError for an empty workspace root, or a base URL that a shell line
    could not hold.
    """
    key = session_key(agent.id, board.id, agent.is_board_lead)
    folder = agent.workspace_path
    if folder is None:
        folder = workspace_path(gateway.workspace_root, openclaw_id(key), gateway=gateway.name)
    return _shared_context(agent, gateway, user, base_url, key) | {
        "board_id": str(board.id),
        "board_name": clean(board.name),
        "board_type": clean(board.board_type),
        "board_objective": clean(board.objective),
        "board_success_metrics": clean(_json_text(board)),
        "board_target_date": board.target_date.isoformat() if board.target_date else "",
        "board_goal_confirmed": _flag(board.goal_confirmed),
        "is_board_lead": _flag(agent.is_board_lead),
        "workspace_path": clean(folder),
        "main_session_key": main_session_key(gateway.id),
    }


def _json_text(board: BoardFacts) -> str:
    try:
        return json.dumps(board.success_metrics or {}, ensure_ascii=False, default=str)
    except (RecursionError, ValueError, TypeError) as error:
        raise PermanentError(
            f"success_metrics of board {board.name!r} cannot be written as text ({type(error).__name__}):"
            " make it flatter"
        ) from None


def main_agent_context(
    agent: AgentFacts, gateway: GatewayFacts, user: UserFacts | None, base_url: str
) -> dict[str, str]:
    """The context of a gateway-main agent: a board agent's without the names about boards (rules.md 10)."""
    return _shared_context(agent, gateway, user, base_url, main_session_key(gateway.id))


def profile_fields(identity_profile: Any) -> dict[str, str]:
    """The ``identity_*`` values of a profile of any shape, with defaults filled in (rules.md 11).

    Never raises.
    """
    given = identity_profile if isinstance(identity_profile, Mapping) else {}
    return {
        f"identity_{name}": _profile_text(given.get(name)) or default
        for name, default in PROFILE_DEFAULTS.items()
    }


def _shared_context(
    agent: AgentFacts, gateway: GatewayFacts, user: UserFacts | None, base_url: str, key: str
) -> dict[str, str]:
    return {
        "agent_name": one_line(agent.name).strip(),
        "agent_id": str(agent.id),
        "session_key": clean(agent.session_key or key),
        "workspace_root": clean(gateway.workspace_root),
        "base_url": _callable_url(base_url),
        "auth_token": PLACEHOLDER,
        **_user_fields(user or UserFacts()),
        **profile_fields(agent.identity_profile),
    }


def _user_fields(user: UserFacts) -> dict[str, str]:
    preferred = clean(user.preferred_name).split()
    return {
        "user_name": clean(user.name).strip(),
        "user_preferred_name": preferred[0] if preferred else "",
        "user_pronouns": clean(user.pronouns).strip(),
        "user_timezone": clean(user.timezone).strip(),
        "user_notes": clean(user.notes).strip(),
        "user_context": clean(user.context).strip(),
    }


def _profile_text(value: Any) -> str:
    if isinstance(value, list):
        items = (clean(item).strip() for item in value)
        return ", ".join(item for item in items if item)
    return clean(value).strip()


def _callable_url(base_url: str) -> str:
    url = base_url.strip().rstrip("/")
    scheme = urlsplit(url).scheme if url else ""
    if scheme not in {"http", "https"} or not _SHELL_SAFE_URL.fullmatch(url):
        raise PermanentError(
            "BASE_URL is not a plain http or https address that agents can call: "
            "letters, digits and . _ ~ : / - only; no user, no query, no blanks"
        )
    return url


def _flag(value: bool) -> str:
    return "true" if value else "false"
