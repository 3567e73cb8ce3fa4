"""Heartbeats in a gateway's config: an agent's block, and which agents run heartbeats without one.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from worker.gateway.agent_ids import IMPLICIT_AGENT, canonical_id
from worker.gateway.config_text import without_nulls
from worker.gateway.dialect import Dialect
from worker.gateway.documents import mapping
from worker.gateway.variables import escaped

DEFAULT_HEARTBEAT: Mapping[str, Any] = {"every": "10m", "target": "none", "includeReasoning": False}
FENCED_HINT = (
    "OpenClaw makes none for an id that was deleted and then written into its config again:"
    " `provisioner delete NAME --keep-files --keep-row`, then `provisioner provision NAME`, make it beat"
)
"""Why a configured agent may have no heartbeat automation, and what to do (2026.9.6)."""
AUTOMATIONS_QUERY: Mapping[str, Any] = {
    "includeDisabled": True,
    "compact": True,
    "includeDeliveryPreviews": False,
}
"""Parameters of cron.list that return all automations and no more of each than is needed."""
_OFF = re.compile(r"0+[a-z]*")


def automation_key(openclaw_id: str) -> str:
    """The declarationKey of the automation that runs an agent's heartbeats (gateways.md 8)."""
    return f"heartbeat:{openclaw_id}"


def heartbeat_block(dialect: Dialect, agent_settings: Mapping[str, Any]) -> dict[str, Any]:
    """An agent's heartbeat block: the defaults, the agent's own settings over them, without refused keys.

    Its text is escaped as openclaw.json needs it.
    """
    merged = without_nulls({**DEFAULT_HEARTBEAT, **agent_settings})
    return {key: escaped(value) for key, value in merged.items() if key not in dialect.refused_heartbeat_keys}


def heartbeat_fault(agent_settings: Mapping[str, Any]) -> str | None:
    """Why no release accepts an agent's heartbeat settings, as a sentence; None if some release may."""
    every = agent_settings.get("every", DEFAULT_HEARTBEAT["every"])
    if isinstance(every, str) and re.search(r"\d", every):
        return None
    return f'agents.heartbeat_config says every: {every!r}, which is not a duration: write one like "10m".'


def heartbeat_enabled(agent_settings: Mapping[str, Any]) -> bool:
    """Whether an agent with these heartbeat settings, over the defaults, should run heartbeats."""
    every = without_nulls({**DEFAULT_HEARTBEAT, **agent_settings}).get("every")
    return _OFF.fullmatch(str(every)) is None


def beating_agents(
    dialect: Dialect, document: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The agents that run heartbeats under the current config, decided as the releases' own code does it.

    If any agent has a heartbeat block of its own, only agents with such a block do. Otherwise the default
    agent does, every 30 minutes, whether or not agents.defaults.heartbeat is set. From 2026.7 on
    agents.defaults.heartbeat applies to all agents, and from 2026.8 on it may name one.
    """
    if any_block(entries):
        return sorted(key for key, entry in entries.items() if _has_block(entry))
    agents = mapping(document.get("agents"))
    defaults = mapping(agents.get("defaults"))
    block = defaults.get("heartbeat")
    if isinstance(block, Mapping) and _OFF.fullmatch(str(block.get("every", "30m"))):
        return []
    there = sorted(entries) or [IMPLICIT_AGENT]
    if dialect.defaults_name_one:
        named = mapping(block).get("agentId")
        owner = mapping(defaults.get("systemAgent")).get("agentId")
        if isinstance(named, str) and named:
            return _if_in_roster(canonical_id(named), there)
        if isinstance(block, Mapping):
            return there
        if isinstance(owner, str) and owner:
            return _if_in_roster(canonical_id(owner), there)
        return _marked_default(entries) or (there if len(there) == 1 else [])
    if isinstance(block, Mapping) and dialect.defaults_beat_all:
        return there
    return _marked_default(entries) or [next(iter(entries), IMPLICIT_AGENT)]


def relying_on_defaults(
    dialect: Dialect, document: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Agents that agents.defaults.heartbeat does not reach only because other agents have own blocks."""
    defaults = mapping(mapping(document.get("agents")).get("defaults"))
    if not isinstance(defaults.get("heartbeat"), Mapping) or not any_block(entries):
        return []
    bare = {key: {**entry, "heartbeat": None} for key, entry in entries.items()}
    return [key for key in beating_agents(dialect, document, bare) if not _has_block(entries.get(key, {}))]


def any_block(entries: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether any agent has a heartbeat block of its own, in which case no agent beats without one."""
    return any(map(_has_block, entries.values()))


def silenced_warning(dialect: Dialect, silenced: Collection[str]) -> str:
    """The warning that the first heartbeat block silences the agents in ``silenced``."""
    names, one = ", ".join(sorted(silenced)), len(silenced) == 1
    return (
        f"This is the gateway's first heartbeat block, so {names}, which beat without one, will stop beating:"
        f" {cure(dialect, silenced)}. KEEP_DEFAULT_HEARTBEAT=true gives {'it' if one else 'them'} that block"
        " when the first agent of a gateway is provisioned."
    )


def kept_warning(dialect: Dialect, kept: Collection[str]) -> str:
    """The warning that agents in ``kept`` got blocks too, so that our first block does not silence them."""
    names = ", ".join(sorted(kept))
    return (
        f"This is the gateway's first heartbeat block; KEEP_DEFAULT_HEARTBEAT gave {names} one too"
        f" ({empty_blocks(dialect, kept)}), so that the owner's heartbeats go on as they were."
    )


def cure(dialect: Dialect, agents: Collection[str]) -> str:
    """What to write into openclaw.json so that these agents run heartbeats although others have blocks."""
    return f"write {empty_blocks(dialect, agents)} into openclaw.json"


def empty_blocks(dialect: Dialect, agents: Collection[str]) -> str:
    """The empty heartbeat blocks of the agents, as they are written in openclaw.json."""
    if dialect.roster == "entries":
        return " and ".join(f"agents.entries.{key}.heartbeat = {{}}" for key in sorted(agents))
    entries = ", ".join(f'{{"id": "{key}", "heartbeat": {{}}}}' for key in sorted(agents))
    return f"agents.list: [{entries}, ...]"


def _has_block(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("heartbeat")) or isinstance(entry.get("heartbeat"), Mapping)


def _if_in_roster(named: str, there: Collection[str]) -> list[str]:
    """The agent that a setting names, if it is in the roster."""
    return [named] if named in there else []


def _marked_default(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The agent that is marked as the default, if there is one."""
    return [key for key, entry in entries.items() if entry.get("default") is True][:1]
