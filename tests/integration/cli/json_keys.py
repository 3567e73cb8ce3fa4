"""The keys of what `--json` prints, as lines that can be kept in a file and compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_suffix(".txt")
NAMED_BY_DATA = {"files", "changed"}
"""Objects whose keys are names of files or agents."""
NOT_OURS = {"changes"}
"""Objects whose keys are a gateway's: what is patched in a roster entry."""


def paths(document: Any, before: str = "") -> Iterator[str]:
    """A path for each key of the document, as ``agents[].files.*.action``; ``before`` comes first."""
    if isinstance(document, Mapping):
        for name, value in document.items():
            key = "*" if before.split(".")[-1] in NAMED_BY_DATA else str(name)
            path = f"{before}.{key}" if before else key
            yield path
            if name not in NOT_OURS:
                yield from paths(value, path)
    elif isinstance(document, list):
        for item in document:
            yield from paths(item, f"{before}[]")


class Keys:
    """Which commands print which keys."""

    def __init__(self) -> None:
        self._commands: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, command: str, document: Any) -> None:
        """Note the keys of one document that ``command`` printed."""
        for path in paths(document):
            self._commands[path].add(command)

    def differences(self, *, of: set[str]) -> tuple[list[str], list[str]]:
        """Lines that are on record for these commands but not found, and lines found but not on record."""
        found = {f"{path}: {', '.join(sorted(commands))}" for path, commands in self._commands.items()}
        kept = set(_recorded(of))
        return sorted(kept - found), sorted(found - kept)


def _recorded(of: set[str]) -> Iterator[str]:
    for line in RECORDED.read_text(encoding="utf-8").splitlines():
        path, _, commands = line.partition(": ")
        if those := [name for name in commands.split(", ") if name in of]:
            yield f"{path}: {', '.join(those)}"
