"""What to do with each file of a workspace: desired and live in, actions out (design D2). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.workspace.rendering import RenderedFile

Action = Literal["create", "update", "unchanged", "preserved", "unsupported"]

KEPT_ON_UPDATE = frozenset({"SELF.md", "USER.md", "MEMORY.md", "TASK_SOUL.md"})
"""What an agent writes into by itself (behaviour 16)."""
BOOTSTRAP = "BOOTSTRAP.md"


@dataclass(frozen=True)
class LiveFile:
    """A file as the gateway has it. ``size`` in bytes; ``content`` None until it was read."""

    size: int
    updated_at_ms: int | None
    content: str | None = None


@dataclass(frozen=True)
class RecordedFile:
    """What we last wrote: columns of ``agent_files``, in this order."""

    kind: str
    source_sha256: str
    size: int
    updated_at_ms: int | None
    locator: str | None = None


@dataclass(frozen=True)
class Mode:
    """What kind of run it is. ``first``: the agent is new on its gateway; ``main``: it is the gateway's own,
    whose USER.md is ours (behaviour 16)."""

    first: bool
    overwrite: bool = False
    force_bootstrap: bool = False
    main: bool = False

    def keeps(self, name: str) -> bool:
        """Whether a file of that name is the agent's to write, once it is not empty."""
        ours = self.main and name == "USER.md"
        return name in KEPT_ON_UPDATE and not (ours or self.first or self.overwrite)


def decide(
    file: RenderedFile, text: str, live: LiveFile | None, record: RecordedFile | None, mode: Mode
) -> Action | None:
    """What to do with ``file``, whose final text is ``text``; None: its live content must be read to say.

    ``live`` is None where the gateway has no such file. A file that carries the token is never taken as it
    is on record: whoever decides on it knows more.
    """
    if file.name == BOOTSTRAP and not mode.first and not mode.force_bootstrap and live is None:
        return "preserved"  # done with and deleted, or hidden since (behaviour 17)
    if live is None:
        return "create"
    if mode.keeps(file.name) and live.size > 0:
        return "preserved"
    if live.content is not None:
        return "unchanged" if live.content == text else "update"
    if not file.carries_token and _as_recorded(file, live, record):
        return "unchanged"
    if live.size != len(text.encode()):
        return "update"
    return None


def _as_recorded(file: RenderedFile, live: LiveFile, record: RecordedFile | None) -> bool:
    return (
        record is not None
        and record.updated_at_ms is not None
        and (record.source_sha256, record.size, record.updated_at_ms)
        == (file.source_sha256, live.size, live.updated_at_ms)
    )
