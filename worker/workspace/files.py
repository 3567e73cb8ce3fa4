"""Lists the files of a workspace, and the shipped template of each (rules.md 6, 7).

To add a file: name it here and put its template below templates/. If gateways accept it by agents.files.set,
add it to ``files`` in worker/gateway/dialect.py; if agents keep notes in it, add it to MEMORY_FILES in
worker/workspace/plan.py.
"""

from __future__ import annotations

from typing import Literal

_SHARED = ("SOUL", "TASK_SOUL", "SELF", "AUTONOMY", "IDENTITY", "BOOTSTRAP", "MEMORY")
"""One template for all roles."""
_BY_ROLE = ("AGENTS", "TOOLS", "USER", "HEARTBEAT", "BOOT")
"""One template for a gateway's main agent, another for the agents of boards."""
_HEARTBEAT = "HEARTBEAT.md"

Role = Literal["lead", "member", "main"]


def template_paths(role: Role) -> dict[str, str]:
    """The shipped template of each workspace file, by file name, for an agent of that role (rules.md 7)."""
    folder = "main" if role == "main" else "board"
    paths = {f"{stem}.md": f"shared/{stem}.md.j2" for stem in _SHARED}
    paths |= {f"{stem}.md": f"{folder}/{stem}.md.j2" for stem in _BY_ROLE}
    if role == "lead":
        paths[_HEARTBEAT] = "board/HEARTBEAT_LEAD.md.j2"
    return dict(sorted(paths.items()))
