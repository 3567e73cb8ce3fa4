"""What an agent leaves behind in a workspace that it moves out of, seen before that folder may go."""

from __future__ import annotations

from collections.abc import Mapping

from worker.errors import PermanentError
from worker.gateway.agent_files import AgentFiles, WorkspaceAbsentError
from worker.gateway.client import GatewayClient
from worker.gateway.roster_reading import LiveRoster
from worker.workspace.plan import BOOTSTRAP, MEMORIES, LiveFile, sha256_of
from worker.workspace.seeds import is_seed

_MEMORY_NAMES = frozenset(name.casefold() for name in MEMORIES)
_DAILY = "memory"
"""The folder that OpenClaw has an agent keep its daily notes in. Up to 2026.7 no answer shows it."""


def reason_to_keep_memories(
    client: GatewayClient,
    live: LiveRoster,
    openclaw_id: str,
    workspace: str,
    delivered: Mapping[str, str],
    *,
    awake: bool,
) -> str | None:
    """Why the folder must stay though its agent has moved out: the agent has lived in it. ``delivered``:
    SHA-256 of what we last wrote into the agent's files, by name; ``awake``: it has been woken, so there may
    be more than the release shows."""
    files = AgentFiles(client, live.dialect, openclaw_id)
    try:
        found = _what_it_wrote(files, delivered, awake=awake)
    except (PermanentError, WorkspaceAbsentError):
        found = "something that cannot be seen from here"
    if found is None:
        return None
    return (
        f"The agent has moved out of {openclaw_id}, but its workspace there, {workspace}, holds {found}: the"
        " entry was removed and the folder was left. Copy what the agent needs into the workspace that it has"
        " now, and delete the folder by hand."
    )


def _what_it_wrote(files: AgentFiles, delivered: Mapping[str, str], *, awake: bool) -> str | None:
    """What shows that the agent has lived there; None where it has not begun yet and all is as we left it."""
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
