"""The agents in a config: a list up to 2026.7.1, a map from 2026.8.1 on (gateways.md 8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.release import Release

MAIN = "main"
NAMING_DEFAULTS = ("heartbeat", "systemAgent")
"""Blocks of ``agents.defaults`` whose ``agentId`` must exist, in releases whose roster is a map."""


class Roster(Protocol):
    """Reads and edits the agents of a parsed config in place."""

    def agents(self, config: Mapping[str, Any]) -> dict[str, JSON]:
        """Entries by agent id, the implicit main agent included, in the config's order."""
        ...

    def add(self, config: JSON, agent_id: str, entry: JSON) -> None: ...

    def remove(self, config: JSON, agent_id: str) -> None:
        """Remove the entry and, if the roster is a map, each block of the defaults that names it."""
        ...

    def settle(self, before: Mapping[str, Any], after: JSON, main_workspace: str) -> None:
        """Add what the gateway itself adds to a patch. Raises `Refusal` if the patch may not be written."""
        ...

    def id_from(self, name: str) -> str:
        """The id that agents.create makes of a name. Raises `Refusal` if it makes none."""
        ...


def slug(name: str) -> str:
    """The name in lower case, with anything but letters, digits, ``_`` and ``-`` as ``-``, at most 64
    characters."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.strip().lower()).strip("-")[:64].strip("-")


class ListRoster:
    """``agents.list``: a patch replaces the whole list, so an omitted entry is a lost agent. Ids are the
    `slug` of those in the file; of two entries with one id the first counts, and both are removed."""

    def agents(self, config: Mapping[str, Any]) -> dict[str, JSON]:
        listed = config.get("agents", {}).get("list") or [{"id": MAIN}]
        found: dict[str, JSON] = {}
        for entry in listed:
            found.setdefault(slug(entry["id"]), {k: v for k, v in entry.items() if k != "id"})
        return found

    def add(self, config: JSON, agent_id: str, entry: JSON) -> None:
        section = config.setdefault("agents", {})
        section["list"] = [*(section.get("list") or [{"id": MAIN}])]
        for place, listed in enumerate(section["list"]):
            if slug(listed["id"]) == agent_id:
                section["list"][place] = {"id": listed["id"], **entry}
                return
        section["list"].append({"id": agent_id, **entry})

    def remove(self, config: JSON, agent_id: str) -> None:
        section = config["agents"]
        section["list"] = [entry for entry in section["list"] if slug(entry["id"]) != agent_id]

    def settle(self, before: Mapping[str, Any], after: JSON, main_workspace: str) -> None:
        return None

    def id_from(self, name: str) -> str:
        agent_id = slug(name) or MAIN
        if agent_id == MAIN:
            raise Refusal(f'"{MAIN}" is reserved')
        return agent_id


def key_of(entries: Mapping[str, Any], agent_id: str) -> str | None:
    """The key of an agent's entry in the file; None if it has none."""
    return next((key for key in entries if slug(key) == agent_id), None)


class EntriesRoster:
    """``agents.entries``: a patch merges by key, and may add agents but not remove one. Ids are the `slug` of
    the keys."""

    def agents(self, config: Mapping[str, Any]) -> dict[str, JSON]:
        entries: dict[str, JSON] = config.get("agents", {}).get("entries") or {MAIN: {}}
        return {slug(key): entry for key, entry in entries.items()}

    def add(self, config: JSON, agent_id: str, entry: JSON) -> None:
        section = config.setdefault("agents", {})
        entries = section.setdefault("entries", {MAIN: {}})
        entries[key_of(entries, agent_id) or agent_id] = entry
        if len(section["entries"]) > 1:
            section["ownership"] = "explicit"

    def remove(self, config: JSON, agent_id: str) -> None:
        section = config.setdefault("agents", {})
        entries = section.setdefault("entries", {MAIN: {}})
        entries.pop(key_of(entries, agent_id), None)
        defaults = section.get("defaults", {})
        for key in NAMING_DEFAULTS:
            if slug(defaults.get(key, {}).get("agentId", "")) == agent_id:
                del defaults[key]

    def settle(self, before: Mapping[str, Any], after: JSON, main_workspace: str) -> None:
        held = after.get("agents", {}).get("entries") or {}
        known = before.get("agents", {}).get("entries")
        if dropped := [agent_id for agent_id in known or {} if agent_id not in held]:
            raise Refusal(
                "Error: Config write would drop agent roster entries without an explicit deletion: "
                f"{', '.join(dropped)}.",
                code="UNAVAILABLE",
            )
        if not held or known:
            return
        section = after["agents"]
        main = {"workspace": main_workspace, **held.get(MAIN, {})}
        section["entries"] = {**held, MAIN: main} if MAIN in held else {MAIN: main, **held}
        section.setdefault("defaults", {}).setdefault("systemAgent", {"agentId": MAIN})
        after.setdefault("talk", {"agentId": MAIN})

    def id_from(self, name: str) -> str:
        if agent_id := slug(name):
            return agent_id
        raise Refusal(
            f'Agent name "{name}" has no valid id characters. Use at least one letter a-z or digit.'
        )


def roster_of(release: Release) -> Roster:
    """The roster of a config, in the release's shape."""
    return EntriesRoster() if release.roster_is_map else ListRoster()
