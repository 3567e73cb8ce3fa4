"""The settings of an agent's entry that the simulated releases know, and how they tell of them.

An excerpt of the releases' own schemas (gateways.md 14). A key that stands in no excerpt takes any value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worker.gateway.setting_schema import accepts, schema_at
from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.release import Release

_TEXT: JSON = {"type": "string"}
_TEXTS: JSON = {"type": "array", "items": _TEXT}


def _object(**properties: JSON) -> JSON:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _one_of(*values: str) -> JSON:
    return {"anyOf": [{"type": "string", "const": value} for value in values]}


_MODEL: JSON = {"anyOf": [_TEXT, _object(primary=_TEXT, fallbacks=_TEXTS)]}
_TOOLS = {"allow": _TEXTS, "alsoAllow": _TEXTS, "deny": _TEXTS}
_ENTRY: JSON = {
    "model": _MODEL,
    "skills": _TEXTS,
    "tools": _object(
        profile=_one_of("minimal", "coding", "messaging", "full"),
        byProvider={"type": "object", "additionalProperties": _object(profile=_TEXT, **_TOOLS)},
        exec={"type": "object"},
        **_TOOLS,
    ),
    "sandbox": _object(
        mode=_one_of("off", "non-main", "all"),
        scope=_one_of("session", "agent", "shared"),
        workspaceAccess=_one_of("none", "ro", "rw"),
        docker=_object(
            image=_TEXT,
            network=_TEXT,
            pidsLimit={"type": "integer", "exclusiveMinimum": 0},
            env={"type": "object", "additionalProperties": _TEXT},
        ),
    ),
    "subagents": _object(allowAgents=_TEXTS, model=_MODEL, thinking=_TEXT),
    "identity": _object(name=_TEXT, theme=_TEXT, emoji=_TEXT, avatar=_TEXT),
}


def entry_schema(release: Release) -> JSON:
    """The schema of one agent's entry."""
    return _object(**{key: _ENTRY.get(key, {}) for key in sorted(release.keys.entry)})


def whole_schema(release: Release) -> JSON:
    """The answer to config.schema: all keys are listed, but only agents' entries are described."""
    entry = entry_schema(release)
    roster: JSON = (
        {"entries": {"type": "object", "additionalProperties": entry}}
        if release.roster_is_map
        else {"list": {"type": "array", "items": entry}}
    )
    agents = {**{key: {} for key in sorted(release.keys.agents)}, **roster}
    top = {**{key: {} for key in sorted(release.keys.top_level)}, "agents": _object(**agents)}
    return {"schema": _object(**top), "uiHints": {}, "version": release.name, "generatedAt": ""}


def looked_up(release: Release, path: str) -> JSON:
    """The answer to config.schema.lookup; `Refusal` where there is no such setting."""
    found = schema_at(whole_schema(release)["schema"], path.replace(".*", ".any").split("."))
    if found is None:
        raise Refusal("config schema path not found")
    named = found.get("properties", {})
    shown = {key: value for key, value in found.items() if key != "properties"}
    return {"path": path, "schema": shown, "children": [{"key": key} for key in sorted(named)]}


def entry_issues(entry: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the settings of one entry, as (dotted path, message)."""
    for key, value in entry.items():
        yield from _issues(_ENTRY.get(key, {}), value, f"{path}.{key}")


def _issues(schema: JSON, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if accepts(schema, value):
        return
    named = schema.get("properties")
    if named is None or not isinstance(value, dict):
        yield path, "Invalid input"
        return
    strange = [f'"{key}"' for key in value if key not in named]
    if strange:
        yield path, f"Unrecognized key{'s' if len(strange) > 1 else ''}: {', '.join(strange)}"
    for key, inner in value.items():
        yield from _issues(named.get(key, {}), inner, f"{path}.{key}")


def models_of(config: Mapping[str, Any], release: Release, agent_id: str | None, agents: int) -> JSON:
    """The answer of models.list: those that the config names, behind a catalogue of which older releases list
    all and newer ones only what has credentials, which the simulator has for none."""
    if release.roster_is_map and agents > 1 and agent_id is None:
        raise Refusal(
            "Multiple agents are configured, but this Gateway request has no explicit owner. Set agentId to"
            " one of the configured agents."
        )
    section = config.get("models", {})
    found: list[JSON] = []
    if not release.roster_is_map and section.get("mode") != "replace":
        found += [{"provider": "anthropic", "id": key, "name": key} for key in _CATALOGUE]
    for provider, about in section.get("providers", {}).items():
        for model in about.get("models", []):
            found.append({"provider": provider, "id": model["id"], "name": model.get("name", model["id"])})
    return {"models": found}


_CATALOGUE = ("claude-haiku-4-5", "claude-opus-4-5", "claude-sonnet-4-5")
