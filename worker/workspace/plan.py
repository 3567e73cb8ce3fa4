"""Decides what to do with a workspace file, from its three sides (decisions.md D2, D19). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from worker.workspace.actions import Action
from worker.workspace.rendering import RenderedFile
from worker.workspace.seeds import is_seed, may_be_seed
from worker.workspace.three_sides import (
    MARK,
    OWNERS,
    Owner,
    Unmerged,
    as_rendered,
    merge_of,
    tools_of,
    with_tools,
    without_tools,
)
from worker.workspace.tokens import PLACEHOLDER, find_token

Bases = Mapping[str, str | Unmerged]
"""Renderings that were delivered, by their hash, or why they cannot serve as the base of a merge."""
MEMORY_FILES = frozenset({"SELF.md", "USER.md", "MEMORY.md", "TASK_SOUL.md"})
"""Files that an agent or its human fill in (rules.md 16)."""
BOOTSTRAP = "BOOTSTRAP.md"


@dataclass(frozen=True)
class LiveFile:
    """A file as the gateway has it. ``size``: in bytes. ``content``: None until it has been read.
    ``revision``: of a heartbeat scratch, the number that each change of it raises. ``garbled``: the file is
    not UTF-8, so its content came with characters in place of bytes and cannot be written back; ``sha256``:
    of such a file's bytes, in hex, as far as the gateway tells it."""

    size: int
    updated_at_ms: int | None
    content: str | None = None
    revision: int | None = None
    garbled: bool = False
    sha256: str | None = None


@dataclass(frozen=True)
class RecordedFile:
    """What we last wrote into a file: columns of ``agent_files``, in this order.

    ``mixed``: the file then also held text of the agent's, so that it was not the rendering of
    ``source_sha256``; ``has_text``: that rendering is in ``file_texts``.
    """

    kind: str
    source_sha256: str
    size: int
    updated_at_ms: int | None
    locator: str | None = None
    mixed: bool = False
    has_text: bool = False


@dataclass(frozen=True)
class Mode:
    """How the workspace is written.

    ``first``: the agent is new on its gateway, so it gets BOOTSTRAP.md. ``overwrite``: replace even text that
    the agent or its human wrote; ``overwrite_files``: in these files. ``keep_files``: files that stay as they
    are where they conflict, and that ``overwrite`` leaves alone. ``unanswered``: files that an
    earlier try of the job sent without getting an answer. ``force_bootstrap``: write BOOTSTRAP.md to
    any agent. ``main``: the agent is the gateway's main agent, whose USER.md is ours unless it is on record
    (rules.md 16). ``owners``: whose the files are, where that differs from OWNERS. ``adopted``: what is not
    on record is its owner's; ``adopting``: nothing is created (rules.md 48).
    """

    first: bool
    overwrite: bool = False
    force_bootstrap: bool = False
    main: bool = False
    overwrite_files: frozenset[str] = frozenset()
    keep_files: frozenset[str] = frozenset()
    unanswered: frozenset[str] = frozenset()
    owners: Mapping[str, Owner] = field(default_factory=dict)
    adopted: bool = False
    adopting: bool = False

    def leaves_to_owner(self, name: str, record: RecordedFile | None) -> bool:
        """Whether the file of that name belongs to an adopted agent's owner: no text of ours is on record
        there, and the job does not name it (rules.md 48)."""
        ours = record is not None and record.kind != "section"
        return self.adopted and not ours and name not in self.overwrite_files

    def keeps(self, name: str) -> bool:
        """Whether the agent or its human fills in the file of that name."""
        owner = self.owner_of(name)
        memory = name in MEMORY_FILES and not (self.main and name == "USER.md")
        return owner == "agent" or (owner == "merged" and memory)

    def owner_of(self, name: str) -> Owner:
        """Whose the file of that name is."""
        return self.owners.get(name) or OWNERS.get(name, "merged")

    def replaces(self, name: str) -> bool:
        """Whether the job was asked to replace the file of that name, whoever wrote it."""
        return name in self.overwrite_files or (self.overwrite and name not in self.keep_files)


@dataclass(frozen=True)
class Decision:
    """What to do with a file. ``text``: the text to write, if the action writes; ``mixed``: the file then
    holds text of the agent's too; ``records``: put it on record though it is not written; ``why``: what makes
    a conflict of it, to complete a sentence."""

    action: Action
    text: str | None = None
    mixed: bool = False
    records: bool = False
    why: Unmerged | None = None


class Need(Enum):
    """What must be read before a decision: the live content, or the rendering that was delivered last."""

    CONTENT = 1
    BASE = 2


def decide(
    file: RenderedFile,
    live: LiveFile | None,
    record: RecordedFile | None,
    mode: Mode,
    bases: Bases | None = None,
) -> Decision | Need:
    """What to do with ``file``, which carries no token.

    ``live``: None if the gateway has no such file; ``bases``: renderings by their hash, None until they have
    been read.
    """
    if file.name == BOOTSTRAP and not mode.first and not mode.force_bootstrap and live is None:
        # The agent finished and deleted it, or it was hidden since (rules.md 17).
        return Decision("preserved")
    if mode.leaves_to_owner(file.name, record):
        return _owners(file, live, mode)
    if live is None:
        return Decision("create", file.text)
    if mode.replaces(file.name) or mode.owner_of(file.name) == "ours":
        return _ours(file, live, record)
    if record is None or mode.owner_of(file.name) == "agent":
        own = mode.keeps(file.name) and has_agent_text(file, live, record)
        if own is None:
            return Need.CONTENT
        return Decision("preserved") if own else _ours(file, live, record)
    return _three_sides(file, live, record, mode, bases)


def _owners(file: RenderedFile, live: LiveFile | None, mode: Mode) -> Decision | Need:
    """What to do with a file that is the owner's of an adopted agent: only a text that is equal to ours comes
    under care."""
    if live is None:
        return Decision("absent") if mode.adopting else Decision("create", file.text)
    if live.content is None and live.size == len(file.text.encode()):
        return Need.CONTENT
    if live.content == file.text:
        return Decision("unchanged")
    return Decision("preserved" if file.name in mode.keep_files else "conflict")


def _ours(file: RenderedFile, live: LiveFile, record: RecordedFile | None) -> Decision | Need:
    if live.content is not None:
        return Decision("unchanged") if live.content == file.text else Decision("update", file.text)
    if _as_recorded(file, live, record):
        return Decision("unchanged")
    if live.size != len(file.text.encode()) or as_we_left_it(live, record):
        return Decision("update", file.text)
    return Need.CONTENT


def _three_sides(
    file: RenderedFile, live: LiveFile, record: RecordedFile, mode: Mode, bases: Bases | None
) -> Decision | Need:
    ours_changed = record.source_sha256 != file.source_sha256
    if unchanged_since_write(live, record):
        if not ours_changed:
            return Decision("preserved" if record.mixed else "unchanged", mixed=record.mixed)
        if not record.mixed:
            return Decision("update", file.text)
    if file.name in MEMORY_FILES and live.size == 0:
        return Decision("update", file.text)
    if live.content is None:
        kept = (
            not ours_changed
            and live.size != len(file.text.encode())
            and not may_be_seed(file.name, live.size)
        )
        return _kept(live, record) if kept else Need.CONTENT
    if live.content == file.text:
        return Decision("unchanged")
    if record.source_sha256 == sha256_of(live.content) or is_seed(file.name, live.content):
        return Decision("update", file.text)
    if _is_torn(file, live.content, mode):
        return Decision("update", file.text)
    if not ours_changed:
        return _kept(live, record)
    if live.garbled and file.name not in mode.keep_files:
        return Decision("conflict", why=Unmerged.NO_TEXT)
    return _both_changed(file, live.content, record, mode, bases)


def _kept(live: LiveFile, record: RecordedFile) -> Decision:
    """The agent alone changed the file. That is put on record, for the day when we change it too, and so that
    the next look need not read it again."""
    return Decision("preserved", mixed=True, records=not record.has_text or live.content is not None)


def _is_torn(file: RenderedFile, live: str, mode: Mode) -> bool:
    """Whether the file holds the beginning of what an earlier try of this job sent without getting an answer:
    its gateway died while it wrote the file, which releases do in place. What follows a token is not looked
    at."""
    return file.name in mode.unanswered and file.text.partition(PLACEHOLDER)[0].startswith(live)


def _both_changed(
    file: RenderedFile, live: str, record: RecordedFile, mode: Mode, bases: Bases | None
) -> Decision | Need:
    if file.name in mode.keep_files:
        return Decision("preserved", mixed=True, records=True)
    if bases is None:
        return Need.BASE
    text = merge_of(bases.get(record.source_sha256), live, file.text)
    if isinstance(text, Unmerged):
        return Decision("conflict", why=text)
    if text == live:  # the agent has made our change itself
        return Decision("preserved", mixed=True, records=True)
    return Decision("update", text) if text == file.text else Decision("merge", text, mixed=True)


def decide_carrier(
    file: RenderedFile,
    live: str,
    record: RecordedFile | None,
    mode: Mode,
    bases: Callable[[], Bases],
    section: bool,
) -> Decision:
    """What to do with the file that carries the token, given its live text.

    Its ``## Tools`` section is always ours, and the rest has three sides like any file. The decision's text
    is what the file should hold, with the placeholder in place of the token, even of a conflict, whose
    section is written too. ``section``: whether the token counts only in that section (rules.md 24).
    """
    tools = tools_of(file.text)
    if record is None or tools is None or mode.replaces(file.name) or mode.owner_of(file.name) == "ours":
        return Decision("update", file.text)
    if _is_torn(file, live, mode):
        return Decision("update", file.text)
    text = as_rendered(live, find_token(live, section=section))
    body = _decide_body(file, text, record, mode, bases)
    assert body.text is not None
    whole = with_tools(body.text, tools)
    if not _holds_token(whole, section):  # something below our section assigns another one
        whole = with_tools(body.text.replace(MARK, ""), tools)
    return replace(body, text=whole)


def _decide_body(
    file: RenderedFile, live: str, record: RecordedFile, mode: Mode, bases: Callable[[], Bases]
) -> Decision:
    """The decision on a carrier's text without its ``## Tools`` section."""
    ours, known = without_tools(file.text), [tools_of(file.text)]
    if sha256_of(live) == record.source_sha256:
        return Decision("update", ours)
    base: str | Unmerged | None = None
    if record.source_sha256 != file.source_sha256:
        base = bases().get(record.source_sha256)
        known += [tools_of(base)] if isinstance(base, str) else []
    theirs = without_tools(live, *filter(None, known))
    theirs = theirs if MARK in theirs else with_tools(theirs, MARK)
    if ours == theirs:
        return Decision("update", ours)
    if record.source_sha256 == file.source_sha256 or file.name in mode.keep_files:
        return Decision("update", theirs, mixed=True)
    text = merge_of(without_tools(base) if isinstance(base, str) else base, theirs, ours)
    if isinstance(text, Unmerged):
        return Decision("conflict", theirs, mixed=True, why=text)
    return Decision("merge" if text not in (ours, theirs) else "update", text, mixed=text != ours)


def restore(
    former: str, live: LiveFile | None, record: RecordedFile | None, bases: Bases | None = None
) -> Decision | Need:
    """What to do with a file, which carries no token, to bring back what the agent had in it before a job
    replaced that (rules.md 51).

    ``former``: that text. What the agent has written since is merged with it.
    """
    if live is None:
        return Decision("create", former, mixed=True)
    if unchanged_since_write(live, record):
        return Decision("update", former, mixed=True)
    if live.content is None:
        return Need.CONTENT
    if live.content == former:
        return Decision("preserved", mixed=True, records=True)
    if bases is None:
        return Need.BASE
    text = merge_of(bases.get(record.source_sha256) if record is not None else None, live.content, former)
    if isinstance(text, Unmerged):
        return Decision("conflict", why=text)
    return Decision("update" if text == former else "merge", text, mixed=True)


def restore_carrier(
    former: str, live: str, record: RecordedFile | None, bases: Callable[[], Bases], section: bool
) -> Decision:
    """As `restore`, of the file that carries the token; the texts have the placeholder in its place."""
    text = as_rendered(live, find_token(live, section=section))
    as_delivered = record is not None and record.source_sha256 == sha256_of(text)
    if text == former or as_delivered:
        return Decision("update", former, mixed=True)
    base = bases().get(record.source_sha256) if record is not None else None
    merged = merge_of(base, text, former)
    if isinstance(merged, Unmerged) or not _holds_token(merged, section):
        why = merged if isinstance(merged, Unmerged) else Unmerged.SAME_LINES
        return Decision("conflict", text, mixed=True, why=why)
    return Decision("update" if merged == former else "merge", merged, mixed=True)


def _holds_token(text: str, section: bool) -> bool:
    probe = "a-token"
    return find_token(text.replace(PLACEHOLDER, probe), section=section) == probe


def has_agent_text(file: RenderedFile, live: LiveFile, record: RecordedFile | None) -> bool | None:
    """Whether the agent or its human wrote the file's text; None if its content must be read to tell.

    The text counts as theirs unless it is empty, seeded by OpenClaw, what we delivered last, or what we would
    deliver now.
    """
    if live.size == 0:
        return False
    if unchanged_since_write(live, record):
        return record is not None and record.mixed
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
    same = record is not None and record.source_sha256 == file.source_sha256
    return same and as_we_left_it(live, record)


def as_we_left_it(live: LiveFile | None, record: RecordedFile | None) -> bool:
    """Whether the file is known to hold what we rendered, and nothing else."""
    return record is not None and not record.mixed and unchanged_since_write(live, record)


def sha256_of(text: str) -> str:
    """The hex digest of ``text`` in UTF-8, as ``agent_files`` stores it."""
    return hashlib.sha256(text.encode()).hexdigest()
