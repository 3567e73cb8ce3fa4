"""Looks for an agent's own notes in a workspace that it has moved out of, before the folder is deleted."""

from __future__ import annotations

from collections.abc import Mapping

from worker.errors import PermanentError
from worker.gateway.agent_files import AgentFiles, WorkspaceAbsentError
from worker.gateway.client import GatewayClient
from worker.gateway.roster_reading import LiveRoster
from worker.workspace.plan import BOOTSTRAP, MEMORY_FILES, LiveFile, sha256_of
from worker.workspace.seeds import is_seed

_MEMORY_NAMES = frozenset(name.casefold() for name in MEMORY_FILES)
_DAILY = "memory"
"""The folder in which OpenClaw agents keep their daily notes. Up to 2026.7 no answer shows it."""


def reason_to_keep_memory_files(
    client: GatewayClient,
    live: LiveRoster,
    openclaw_id: str,
    workspace: str,
    delivered: Mapping[str, str],
    *,
    awake: bool,
) -> str | None:
    """Why the folder that an agent has moved out of must stay, or None if the agent left no notes in it.

    ``delivered``: by file name, the SHA-256 of what we last wrote; ``awake``: the agent has been woken, so
    the folder may hold more than the gateway's release shows.
    """
    files = AgentFiles(client, live.dialect, openclaw_id)
    try:
        found = _written_by_agent(files, delivered, awake=awake)
    except (PermanentError, WorkspaceAbsentError):
        found = "something that cannot be seen from here"
    if found is None:
        return None
    return (
        f"The agent has moved out of {openclaw_id}, but its workspace there, {workspace}, holds {found}: the"
        " entry was removed and the folder was left. Copy what the agent needs into the workspace that it has"
        " now, and delete the folder by hand."
    )


def _written_by_agent(files: AgentFiles, delivered: Mapping[str, str], *, awake: bool) -> str | None:
    """A phrase for what the agent left there, or None if it has not started and left our files unchanged."""
    held = files.live()
    if not held:
        return None
    names = [name for name, file in held.items() if name.casefold() in _MEMORY_NAMES and file.size]
    own = [name for name, file in files.read(names).items() if _is_own(name, file, delivered)]
    if own:
        return f"what it or its human wrote ({', '.join(own)})"
    noted = files.has_folder(_DAILY) if files.dialect.lists_workspace else awake
    if noted or BOOTSTRAP not in held:
        return "what it may have noted since it began its work"
    return None


def _is_own(name: str, file: LiveFile, delivered: Mapping[str, str]) -> bool:
    text = file.content or ""
    return bool(text.strip()) and not is_seed(name, text) and delivered.get(name) != sha256_of(text)
