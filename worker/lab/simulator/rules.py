"""Checks whether a gateway accepts a config: keys, durations, ids, ownership (gateways.md 4, 6, 8)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from worker.lab.simulator.refusal import Refusal
from worker.lab.simulator.release import Release
from worker.lab.simulator.roster import MAIN, NAMING_DEFAULTS, slug
from worker.lab.simulator.settings_schema import entry_issues

_DURATION = re.compile(r"\d+(\.\d+)?(ms|s|m|h|d)?")
_AGENT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.IGNORECASE)
_VISIBILITY = frozenset({"showOk", "showAlerts", "useIndicator"})
_ACK_SCOPES = ("group-mentions", "group-all", "direct", "all")
_OWNERSHIP = (
    'multi-agent rosters require agents.ownership="explicit" or one legacy default=true marker; '
    'add agents.ownership="explicit" or run openclaw doctor'
)

Issue = tuple[str, str]
"""A dotted path, and what is wrong there."""


def check(config: Mapping[str, Any], release: Release) -> None:
    """Raise `Refusal` "invalid config" with every issue, in the release's own shape."""
    issues = list(issues_of(config, release))
    if not issues:
        return
    message = "invalid config"
    if release.names_issues:
        message += ": " + "; ".join(f"{_shown(path)}: {text}" for path, text in issues)
    raise Refusal(message, details={"issues": [{"path": path, "message": text} for path, text in issues]})


def issues_of(config: Mapping[str, Any], release: Release) -> Iterator[Issue]:
    """The issues of a config; none if a gateway accepts it."""
    yield from _unknown(config, release.keys.top_level, "")
    agents = config.get("agents", {})
    yield from _unknown(agents, release.keys.agents, "agents")
    for place, entry in enumerate(agents.get("list", []) if not release.roster_is_map else []):
        if not isinstance(entry.get("id"), str):
            yield f"agents.list.{place}.id", "Invalid input: expected string, received undefined"
        yield from _entry(entry, release, f"agents.list.{place}")
    for agent_id, entry in (agents.get("entries", {}) if release.roster_is_map else {}).items():
        if not _AGENT_ID.fullmatch(agent_id):
            yield f"agents.entries.{agent_id}", "Invalid key in record"
        yield from _twins(agent_id, agents["entries"])
        yield from _entry(entry, release, f"agents.entries.{agent_id}")
    if release.roster_is_map:
        yield from _named_by_defaults(agents)
    if release.roster_is_map and len(agents.get("entries", {})) > 1 and agents.get("ownership") != "explicit":
        yield "agents.ownership", _OWNERSHIP
    yield from _channels(config.get("channels", {}), release)
    scope = config.get("messages", {}).get("ackReactionScope", _ACK_SCOPES[0])
    if scope not in _ACK_SCOPES:
        expected = "|".join(f'"{known}"' for known in _ACK_SCOPES)
        yield "messages.ackReactionScope", f"Invalid option: expected one of {expected}"


def _named_by_defaults(agents: Mapping[str, Any]) -> Iterator[Issue]:
    """Defaults that name an agent which is not there."""
    there = {slug(key) for key in agents.get("entries") or (MAIN,)}
    for key in NAMING_DEFAULTS:
        named = agents.get("defaults", {}).get(key, {}).get("agentId")
        if named is not None and slug(named) not in there:
            told = f'Unknown agent id "{named}" (not in agents.entries).'
            yield f"agents.defaults.{key}.agentId", told


def _twins(key: str, entries: Mapping[str, Any]) -> Iterator[Issue]:
    """An entry whose id another one in front of it has."""
    for other in entries:
        if other == key:
            return
        if slug(other) == slug(key):
            told = f'"{other}" and "{key}" resolve to the same agent id "{slug(key)}"'
            cure = "rename one key so each agent has a unique id"
            yield f"agents.entries.{key}", f"agents.entries keys {told}; {cure}"


def _entry(entry: Mapping[str, Any], release: Release, path: str) -> Iterator[Issue]:
    yield from _unknown(entry, release.keys.entry, path)
    yield from entry_issues(entry, path)
    heartbeat = entry.get("heartbeat", {})
    yield from _unknown(heartbeat, release.keys.heartbeat, f"{path}.heartbeat")
    every = heartbeat.get("every")
    if every is not None and not _DURATION.fullmatch(str(every)):
        yield f"{path}.heartbeat.every", "invalid duration (use ms, s, m, h)"


def _channels(channels: Mapping[str, Any], release: Release) -> Iterator[Issue]:
    defaults = channels.get("defaults", {})
    yield from _unknown(defaults, release.keys.channel_defaults, "channels.defaults")
    visibility = defaults.get(release.keys.visibility, {})
    yield from _unknown(visibility, _VISIBILITY, f"channels.defaults.{release.keys.visibility}")


def _unknown(section: Mapping[str, Any], known: frozenset[str], path: str) -> Iterator[Issue]:
    strange = [f'"{name}"' for name in section if name not in known]
    if strange:
        yield path, f"Unrecognized key{'s' if len(strange) > 1 else ''}: {', '.join(strange)}"


def _shown(path: str) -> str:
    if not path:
        return "<root>"
    head, _, last = path.rpartition(".")
    return path if _AGENT_ID.fullmatch(last) or last[:1].islower() else f'{head}["{last}"]'
