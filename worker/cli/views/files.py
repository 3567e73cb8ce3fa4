"""Unified diffs of workspace files, coloured on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from worker.cli.console import plain, say

_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def show_diffs(files: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the diff of every file that has one. Credentials in them were masked where they were made."""
    for name in sorted(files):
        if diff := files[name].get("diff"):
            say("", Text(plain(name), style="bold"), coloured(str(diff)))


def coloured(diff: str) -> Text:
    """A unified diff, a style a line; its two heading lines are dim."""
    shown = Text()
    for number, line in enumerate(diff.splitlines()):
        style = "dim" if number < 2 else _STYLES.get(line[:1], "")
        shown.append(("\n" if number else "") + plain(line), style=style)
    return shown
