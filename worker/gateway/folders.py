"""The folders of a gateway's agents, as far as its config and its answers show them. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from worker.gateway.dialect import Dialect
from worker.gateway.roster_plan import RosterPlan, roster_entries
from worker.gateway.roster_reading import LiveRoster


@dataclass(frozen=True)
class AgentFolders:
    """The folders of one agent.

    ``workspace`` and ``agent_dir``: as the gateway resolves them; None if its config names none. ``written``:
    the workspace as the owner wrote it.
    """

    workspace: str | None
    agent_dir: str | None
    written: str | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """The folders that the config names, as resolved."""
        return tuple(folder for folder in (self.workspace, self.agent_dir) if folder)


def folders_of(live: LiveRoster) -> dict[str, AgentFolders]:
    """The folders of each entry of the roster, by id.

    They are taken from config.get's ``config``, in which every release has resolved ``~``, or from the file
    itself for an entry that is missing there.
    """
    resolved = _entries(live.dialect, live.answer.get("config"))
    found = {}
    for key, entry in live.entries.items():
        shown = resolved.get(key, entry)
        found[key] = AgentFolders(
            _text(shown.get("workspace")) or _text(entry.get("workspace")),
            _text(shown.get("agentDir")) or _text(entry.get("agentDir")),
            _text(entry.get("workspace")),
        )
    return found


def workspace_changes(live: LiveRoster, plan: RosterPlan) -> dict[str, str]:
    """A warning for each agent in the roster to which the plan gives another workspace, by id.

    No release moves the files, so the agent would wake in a folder without its notes and its token.
    """
    found, folders = {}, folders_of(live)
    for key, patch in plan.patches.items():
        if "workspace" in patch and key in folders:
            before = folders[key].workspace or "the gateway's default folder"
            found[key] = (
                f"gateways.workspace_root puts its workspace at {patch['workspace']}, and until now it was"
                f" {before}: the gateway moves no files, so the agent's notes and its token stay there. Copy"
                " what it needs, or set workspace_root back and update it again."
            )
    return found


def home_folder(live: LiveRoster) -> str | None:
    """What ``~`` stands for on the gateway's machine; None if its config does not show it.

    It follows from an entry that is written with ``~``, or from the config's own path in the usual state
    folder.
    """
    for folders in folders_of(live).values():
        written, resolved = folders.written or "", folders.workspace or ""
        if written.startswith("~/") and resolved.endswith(written[1:]):
            return resolved.removesuffix(written[1:])
    path = _text(live.answer.get("path")) or ""
    usual = "/.openclaw/openclaw.json"
    return path.removesuffix(usual) if path.endswith(usual) else None


def resolve_home(folder: str, home: str | None) -> str:
    """The folder with a leading ``~`` resolved, if ``home`` is known."""
    return f"{home}{folder[1:]}" if home is not None and folder.startswith("~/") else folder


def same_folder(one: str, other: str) -> bool:
    """Whether two paths name the same folder. Symbolic links cannot be seen from here."""
    return _normal(one) == _normal(other)


def is_inside(folder: str, around: str) -> bool:
    """Whether ``folder`` lies inside ``around``; a folder does not lie inside itself."""
    return _normal(folder).startswith(f"{_normal(around)}/")


def overlapping(folder: str, others: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
    """Yield (id, folder) for each folder in ``others`` that is this one, or lies inside or around it.

    ``others``: folders by agent's id.
    """
    for key, theirs in others.items():
        for other in theirs:
            ours, its = f"{_normal(folder)}/", f"{_normal(other)}/"
            if ours.startswith(its) or its.startswith(ours):
                yield key, other


def _normal(path: str) -> str:
    normal = posixpath.normpath(path.strip().replace("\\", "/"))
    return normal.casefold() if normal[1:2] == ":" else normal


def _entries(dialect: Dialect, config: Any) -> Mapping[str, Mapping[str, Any]]:
    return roster_entries(dialect, config) if isinstance(config, Mapping) else {}


def _text(value: Any) -> str | None:
    return value.strip() if isinstance(value, str) and value.strip() else None
