"""Merges a file's two sets of changes: ours and those that were made on the gateway (rules.md 47). Pure.

A file has three sides: the rendering that was delivered last (base), what stands on the gateway (live), and
the rendering of now (desired).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import Match, SequenceMatcher
from enum import Enum
from itertools import accumulate
from typing import Literal, cast

from merge3 import Merge3, SequenceMatcherProtocol

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

MOST_STEPS = 500_000
"""Limit on the pairs of lines that are looked at to compare two sides, which takes 0.1 s: difflib needs
seconds for 2,000 lines if many of them are equal."""

MARK = "\x00tools\x00"
"""Stands for the ``## Tools`` section in a text without it."""


class Unmerged(Enum):
    """Why a file that both sides changed is not merged; the values complete a sentence about the file."""

    SAME_LINES = "both changed the same lines"
    UNKNOWN_BASE = "both changed it, and what was delivered last is not known any more"
    OLDER_WORKERS = "both changed it, and workers of a release that cannot merge are still running"
    NO_TEXT = "both changed it, and it is not UTF-8 text"
    TOO_ALIKE = "both changed it, and too many of its lines are equal to tell what was changed where"
    TOO_LONG = f"both changed it, and it is longer than {MOST_BYTES // 1024} KB or {MOST_LINES} lines"


def merge_of(base: str | Unmerged | None, live: str, desired: str) -> str | Unmerged:
    """``live`` with what changed from ``base`` to ``desired``, line by line, unless changes touch each other.

    The result has the line endings of ``live``, and a newline at its end if ``live`` has one. It stays the
    same if it is merged again, as by a worker that does not know that it was written.
    """
    if base is None:
        return Unmerged.UNKNOWN_BASE
    if isinstance(base, Unmerged):
        return base
    if any(_too_long(text) for text in (base, live, desired)):
        return Unmerged.TOO_LONG
    crlf = "\r\n" in live and "\n" not in live.replace("\r\n", "")
    a, b, c = (_lines(text.replace("\r\n", "\n") if crlf else text) for text in (base, live, desired))
    try:
        if _holds_ours(a, b, c):
            return live
        lines = _merged(a, b, c)
        if lines is None:
            return Unmerged.SAME_LINES
        text = "\n".join(lines) + ("\n" if live.endswith("\n") else "")
        if not _stays(a, _lines(text), c):
            return Unmerged.SAME_LINES
    except _TooAlikeError:
        return Unmerged.TOO_ALIKE
    return text.replace("\n", "\r\n") if crlf else text


def _holds_ours(base: Sequence[str], live: Sequence[str], desired: Sequence[str]) -> bool:
    """Whether ``live`` is a merge already, say one whose answer was lost: our changes can be taken out of it,
    and merging them in again leads back to it. Equal lines would otherwise make a second merge add them
    twice."""
    without = _merged(desired, live, base)
    return without is not None and without != live and _merged(base, without, desired) == live


def _stays(base: Sequence[str], merged: Sequence[str], desired: Sequence[str]) -> bool:
    return _holds_ours(base, merged, desired) or _merged(base, merged, desired) == merged


def _merged(base: Sequence[str], live: Sequence[str], desired: Sequence[str]) -> list[str] | None:
    """The merged lines; None if both sides changed the same ones. Raises _TooAlikeError."""
    lines: list[str] = []
    matcher = cast(type[SequenceMatcherProtocol[str]], _Matcher)
    for region in Merge3(base, live, desired, sequence_matcher=matcher).merge_groups():
        if region[0] == "conflict":
            return None
        lines += region[1]
    return lines


class _TooAlikeError(Exception):
    pass


class _Matcher(SequenceMatcher[str]):
    """Compares lines in at most MOST_STEPS. Raises _TooAlikeError."""

    def __init__(self, isjunk: Callable[[str], bool] | None, a: Sequence[str], b: Sequence[str]) -> None:
        super().__init__(isjunk, a, b)
        places: Mapping[str, Sequence[int]] = vars(self)["b2j"]
        self._lines = len(a)
        self._before = [0, *accumulate(1 + len(places.get(line, ())) for line in a)]
        self._steps = 0

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> Match:
        self._steps += self._before[self._lines if ahi is None else ahi] - self._before[alo]
        if self._steps > MOST_STEPS:
            raise _TooAlikeError
        return super().find_longest_match(alo, ahi, blo, bhi)


def _too_long(text: str) -> bool:
    return len(text.encode(errors="replace")) > MOST_BYTES or text.count("\n") >= MOST_LINES


def _lines(text: str) -> Sequence[str]:
    return text.removesuffix("\n").split("\n") if text else []


def without_tools(text: str, *sections: str) -> str:
    """``text`` with its ``## Tools`` section, the last if there are several, as one line that `with_tools`
    recognizes; unchanged if there is none.

    ``sections``: our sections, one of which may stand there. What somebody added below its end, without a
    heading, is then no part of it.
    """
    lines = text.split("\n")
    span = tools_span(lines)
    if span is None:
        return text
    end = _end_of_ours(lines, span, sections)
    mark = MARK + ("\r" if lines[end - 1].endswith("\r") else "")
    return "\n".join((*lines[: span[0]], mark, *lines[end:]))


_FEWEST, _COMPARED = 5, 20


def _end_of_ours(lines: Sequence[str], span: tuple[int, int], sections: Sequence[str]) -> int:
    """The line behind our section: where the most of the last lines of one of ``sections`` stand, five at
    least; else the end of the span."""
    plain = [line.removesuffix("\r") for line in lines[span[0] : span[1]]]
    most, found = 0, len(plain)
    for section in sections:
        ending = section.split("\n")[-_COMPARED:]
        most = max(most, min(_FEWEST, len(ending)) - 1)
        for end in range(1, len(plain) + 1):
            pairs = zip(reversed(ending), reversed(plain[max(0, end - len(ending)) : end]), strict=False)
            equal = next((count for count, (one, other) in enumerate(pairs) if one != other), None)
            equal = min(end, len(ending)) if equal is None else equal
            if equal > most:
                most, found = equal, end
    return span[0] + found


def tools_of(text: str) -> str | None:
    """The ``## Tools`` section of a rendering, with its heading; None if there is none."""
    lines = text.split("\n")
    span = tools_span(lines)
    return None if span is None else "\n".join(lines[span[0] : span[1]])


def with_tools(body: str, section: str) -> str:
    """The inverse of `without_tools`. If somebody removed the section, it comes back at the end."""
    newline = "\r\n" if "\r\n" in body else "\n"
    section = section.replace("\n", newline)
    if body.count(MARK) == 1:
        return body.replace(MARK, section)
    rest = body.replace(MARK, "").rstrip("\r\n")
    return f"{rest}{newline}{newline}{section}" if rest.strip() else section


_SHORTEST_TOKEN = 16


def as_rendered(live: str, token: str | None) -> str:
    """The live text of a file that carries the token, with the placeholder in place of the token.

    It then compares with a rendering, and each place where the token stands gets a new one. A token so short
    that it may be a word is only sought in the ``## Tools`` section.
    """
    if not token:
        return live
    if len(token) >= _SHORTEST_TOKEN:
        return live.replace(token, PLACEHOLDER)
    lines = live.split("\n")
    span = tools_span(lines)
    if span is None:
        return live
    ours = [line.replace(token, PLACEHOLDER) for line in lines[span[0] : span[1]]]
    return "\n".join((*lines[: span[0]], *ours, *lines[span[1] :]))
