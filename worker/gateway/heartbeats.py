"""Heartbeats as a gateway's config has them: one agent's block, and who runs by the defaults. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from worker.gateway.config_text import without_nulls
from worker.gateway.dialect import Dialect
from worker.gateway.variables import escaped

DEFAULT_HEARTBEAT: Mapping[str, Any] = {"every": "10m", "target": "none", "includeReasoning": False}
_OFF = re.compile(r"0+[a-z]*")


def heartbeat_block(dialect: Dialect, agent_settings: Mapping[str, Any]) -> dict[str, Any]:
    """The heartbeat block of an agent: the default, the agent's settings over it, less what is refused; its
    text is escaped as openclaw.json needs it."""
    merged = without_nulls({**DEFAULT_HEARTBEAT, **agent_settings})
    return {key: escaped(value) for key, value in merged.items() if key not in dialect.refused_heartbeat_keys}


def heartbeat_fault(agent_settings: Mapping[str, Any]) -> str | None:
    """What no release takes of an agent's settings, as a sentence; None where only the gateway can tell."""
    every = agent_settings.get("every", DEFAULT_HEARTBEAT["every"])
    if isinstance(every, str) and re.search(r"\d", every):
        return None
    return f'agents.heartbeat_config says every: {every!r}, which is no duration: write one like "10m".'


def relying_on_defaults(
    parsed: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]], besides: Collection[str] = ()
) -> list[str]:
    """Agents of the roster's ``entries``, but those of ``besides``, that run by agents.defaults.heartbeat:
    silent once any agent has a block of its own (gateway.md 8)."""
    agents = parsed.get("agents")
    defaults = agents.get("defaults") if isinstance(agents, Mapping) else None
    block = defaults.get("heartbeat") if isinstance(defaults, Mapping) else None
    if not isinstance(block, Mapping) or _OFF.fullmatch(str(block.get("every", "30m"))):
        return []
    return sorted(key for key in entries if key not in besides and "heartbeat" not in entries[key])


def any_block(entries: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether an agent has a heartbeat block of its own, so that the defaults serve nobody."""
    return any("heartbeat" in entry for entry in entries.values())


def silencing(silenced: Collection[str]) -> str:
    """The warning that goes with the first block."""
    names = ", ".join(sorted(silenced))
    return (
        f"This is the gateway's first heartbeat block, so {names} will not run by agents.defaults.heartbeat"
        " any more: give each a heartbeat block of its own in openclaw.json."
    )
