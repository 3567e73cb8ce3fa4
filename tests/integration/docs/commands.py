"""The commands that README.md and docs/ tell a person to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_PROGRAMS = ("make", "pip", "export", "provisioner", "celery", "cp", "docker")
_INDENTED = re.compile(rf"^    ((?:{'|'.join(_PROGRAMS)}) .*)$", re.MULTILINE)
_FENCED = re.compile(r"^```(?:sh|bash|shell|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(provisioner [^`]+)`")
_ROW = re.compile(r"^\| `provisioner ([a-z]+)[^|]*?`(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Typed:
    """One command as it stands on a page; comments are left out."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def typed() -> list[Typed]:
    """What stands in blocks of its own, in the order of the pages: to be typed as it is."""
    return [found for page in PAGES for found in _of(page)]


def mentioned() -> list[Typed]:
    """What stands in the text as `provisioner ...`, but for notations with brackets."""
    return [
        Typed(page.name, tuple(shlex.split(" ".join(text.split()))))
        for page in PAGES
        for text in _INLINE.findall(page.read_text(encoding="utf-8"))
        if not re.search(r"[\[\]|<>\u2026\\]|\.\.\.", text)
    ]


def rows() -> list[tuple[str, list[str]]]:
    """Each row of the README's table: a command, and the options that the row names."""
    return [
        (name, re.findall(r"(?<![\w-])--[a-z][a-z-]+", rest))
        for name, rest in _ROW.findall(PAGES[0].read_text(encoding="utf-8"))
    ]


def _of(page: Path) -> Iterator[Typed]:
    text = page.read_text(encoding="utf-8")
    lines = _INDENTED.findall(text)
    lines += [line for block in _FENCED.findall(text) for line in block.splitlines()]
    for line in lines:
        if words := shlex.split(line.partition(" > ")[0], comments=True):
            yield Typed(page.name, tuple(words))
