"""Merges a file's two sets of changes: ours and those that were made on the gateway (rules.md 47). Pure.

A file has three sides: the rendering that was delivered last (base), what stands on the gateway (live), and
the rendering of now (desired).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Literal

from merge3 import Merge3

from worker.workspace.tokens import PLACEHOLDER, tools_span

Owner = Literal["ours", "merged", "agent"]
"""Whose a file is: rewritten whenever it differs; merged; or written only until somebody fills it in."""

OWNERS: Mapping[str, Owner] = {
    "BOOTSTRAP.md": "ours",
    "SELF.md": "agent",
    "MEMORY.md": "agent",
    "TASK_SOUL.md": "agent",
}
"""The owners of files where no row of ``file_owners`` names another; of all other files ``merged``. In a file
that carries the token, the section ``## Tools`` is always ours."""

MOST_BYTES = 64 * 1024
MOST_LINES = 2_000
"""Limits on each side of a merge, beyond which the file is a conflict."""

MARK = "\x00tools\x00"
"""Stands for the ``## Tools`` section in a text without it."""


class Unmerged(Enum):
    """Why a file that both sides changed is not merged; the values complete a sentence about the file."""

    SAME_LINES = "both changed the same lines"
    UNKNOWN_BASE = "both changed it, and what was delivered last is not known any more"
    OLDER_WORKERS = "both changed it, and workers of a release that cannot merge are still running"
    TOO_LONG = f"both changed it, and it is longer than {MOST_BYTES // 1024} KB or {MOST_LINES} lines"


def merge_of(base: str | Unmerged | None, live: str, desired: str) -> str | Unmerged:
    """``live`` with what changed from ``base`` to ``desired``, line by line, unless changes touch each other.

    The result has the line endings of ``live``, and a newline at its end if ``live`` has one.
    """
    if base is None:
        return Unmerged.UNKNOWN_BASE
    if isinstance(base, Unmerged):
        return base
    if any(_too_long(text) for text in (base, live, desired)):
        return Unmerged.TOO_LONG
    crlf = "\r\n" in live and "\n" not in live.replace("\r\n", "")
    a, b, c = (_lines(text.replace("\r\n", "\n") if crlf else text) for text in (base, live, desired))
    lines: list[str] = []
    for region in Merge3(a, b, c).merge_groups():
        if region[0] == "conflict":
            return Unmerged.SAME_LINES
        lines += region[1]
    text = "\n".join(lines) + ("\n" if live.endswith("\n") else "")
    return text.replace("\n", "\r\n") if crlf else text


def _too_long(text: str) -> bool:
    return len(text.encode(errors="replace")) > MOST_BYTES or text.count("\n") >= MOST_LINES


def _lines(text: str) -> Sequence[str]:
    return text.removesuffix("\n").split("\n") if text else []


def without_tools(text: str) -> str:
    """``text`` with its ``## Tools`` section, the last if there are several, as one line that `with_tools`
    recognizes; unchanged if there is none."""
    lines = text.split("\n")
    span = tools_span(lines)
    if span is None:
        return text
    return "\n".join((*lines[: span[0]], MARK, *lines[span[1] :]))


def tools_of(text: str) -> str | None:
    """The ``## Tools`` section of a rendering, with its heading; None if there is none."""
    lines = text.split("\n")
    span = tools_span(lines)
    return None if span is None else "\n".join(lines[span[0] : span[1]])


def with_tools(body: str, section: str) -> str:
    """The inverse of `without_tools`. If somebody removed the section, it comes back at the end."""
    if "\r\n" in body:
        section = section.replace("\n", "\r\n")
    if body.count(MARK) == 1:
        return body.replace(MARK, section)
    rest = body.replace(MARK, "").rstrip("\n")
    return f"{rest}\n\n{section}" if rest.strip() else section


def as_rendered(live: str, token: str | None) -> str:
    """The live text of a file that carries the token, with the placeholder in place of the token's assignment
    in its ``## Tools`` section, so that it compares with a rendering."""
    if not token or live.count(token) != 1:
        return live
    return live.replace(token, PLACEHOLDER)
