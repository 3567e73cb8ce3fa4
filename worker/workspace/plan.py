"""Decides what to do with a workspace file, from its desired and its live content (decisions.md D2). Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from worker.workspace.rendering import RenderedFile
from worker.workspace.seeds import is_seed, may_be_seed

Action = Literal["create", "update", "unchanged", "preserved", "unsupported"]

MEMORY_FILES = frozenset({"SELF.md", "USER.md", "MEMORY.md", "TASK_SOUL.md"})
"""Files that an agent or its human fill in (rules.md 16)."""
BOOTSTRAP = "BOOTSTRAP.md"


@dataclass(frozen=True)
class LiveFile:
    """A file as the gateway has it. ``size``: in bytes. ``content``: None until it has been read."""

    size: int
    updated_at_ms: int | None
    content: str | None = None


@dataclass(frozen=True)
class RecordedFile:
    """What we last wrote into a file: columns of ``agent_files``, in this order."""

    kind: str
    source_sha256: str
    size: int
    updated_at_ms: int | None
    locator: str | None = None


@dataclass(frozen=True)
class Mode:
    """How the workspace is written.

    ``first``: the agent is new on its gateway, so it gets BOOTSTRAP.md. ``overwrite``: replace even text that
    the agent or its human wrote. ``force_bootstrap``: write BOOTSTRAP.md to any agent. ``main``: the agent is
    the gateway's main agent, whose USER.md is ours (rules.md 16).
    """

    first: bool
    overwrite: bool = False
    force_bootstrap: bool = False
    main: bool = False

    def keeps(self, name: str) -> bool:
        """Whether the agent or its human fills in the file of that name."""
        return name in MEMORY_FILES and not (self.main and name == "USER.md")


def decide(
    file: RenderedFile, text: str, live: LiveFile | None, record: RecordedFile | None, mode: Mode
) -> Action | None:
    """What to do with ``file``, whose final text is ``text``; None if its live content must be read first.

    ``live``: None if the gateway has no such file. For a file that carries the token, a matching ``record``
    does not suffice for "unchanged", because it says nothing about the token.
    """
    if file.name == BOOTSTRAP and not mode.first and not mode.force_bootstrap and live is None:
        return "preserved"  # the agent finished and deleted it, or it was hidden since (rules.md 17)
    if live is None:
        return "create"
    if mode.keeps(file.name) and not mode.overwrite:
        own = has_agent_text(file, live, record)
        if own is not False:
            return None if own is None else "preserved"
    if live.content is not None:
        return "unchanged" if live.content == text else "update"
    if not file.carries_token and _as_recorded(file, live, record):
        return "unchanged"
    if live.size != len(text.encode()):
        return "update"
    return None


def has_agent_text(file: RenderedFile, live: LiveFile, record: RecordedFile | None) -> bool | None:
    """Whether the agent or its human wrote the file's text; None if its content must be read to tell.

    The text counts as theirs unless it is empty, seeded by OpenClaw, what we delivered last, or what we would
    deliver now.
    """
    if live.size == 0 or unchanged_since_write(live, record):
        return False
    if live.content is None:
        known_sizes = (len(file.text.encode()), record.size if record else None)
        return None if live.size in known_sizes or may_be_seed(file.name, live.size) else True
    if live.content == file.text or is_seed(file.name, live.content):
        return False
    delivered = record is not None and record.source_sha256 == sha256_of(live.content)
    return not delivered


def unchanged_since_write(live: LiveFile | None, record: RecordedFile | None) -> bool:
    """Whether the file still has the size and time with which we wrote it; False if either is unknown."""
    return (
        live is not None
        and record is not None
        and record.updated_at_ms is not None
        and (record.size, record.updated_at_ms) == (live.size, live.updated_at_ms)
    )


def _as_recorded(file: RenderedFile, live: LiveFile, record: RecordedFile | None) -> bool:
    return (
        record is not None
        and record.source_sha256 == file.source_sha256
        and unchanged_since_write(live, record)
    )


def sha256_of(text: str) -> str:
    """The hex digest of ``text`` in UTF-8, as ``agent_files`` stores it."""
    return hashlib.sha256(text.encode()).hexdigest()
