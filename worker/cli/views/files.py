"""Workspace files: what was done or would be done to each, and unified diffs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from worker.cli.console import plain, say, size
from worker.workspace.actions import WRITES

Files = Mapping[str, Mapping[str, Any]]

ACTION_STYLES: Mapping[str, str] = {
    "create": "green",
    "update": "yellow",
    "merge": "yellow",
    "conflict": "red",
}
_CAUSES: Mapping[str, str] = {
    "templates": "templates or facts changed",
    "agent": "changed on the gateway",
    "both": "changed on both sides",
}
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def list_of_files(files: Files) -> Table:
    """What was done to each file; those that the gateway does not take come last."""
    shown = _table()
    for name in sorted(files, key=lambda name: (files[name].get("action") == "unsupported", name)):
        file = files[name]
        action = str(file.get("action", ""))
        style = "dim" if action in ("unsupported", "unchanged", "preserved") else ""
        shown.add_row(plain(name), Text(action, style=style), _size(file))
    return shown


def planned_files(files: Files) -> Table:
    """What would be done to each file, and who made it differ; what is left alone comes last."""
    shown = _table()
    shown.add_column("Why")
    for name in sorted(files, key=lambda name: (_order(files[name]), name)):
        file = files[name]
        action = str(file.get("action", ""))
        style = ACTION_STYLES.get(action, "dim")
        shown.add_row(plain(name), Text(action, style=style), _size(file), Text(_why(file), style))
    return shown


def _table() -> Table:
    shown = Table("File", "Action", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("Size", justify="right")
    return shown


def _size(file: Mapping[str, Any]) -> str:
    return size(int(file.get("size") or 0))


def _order(file: Mapping[str, Any]) -> int:
    ways = (*WRITES, "conflict", "absent", "unchanged", "preserved", "theirs", "unsupported")
    action = file.get("action")
    return ways.index(action) if action in ways else len(ways)


def _why(file: Mapping[str, Any]) -> str:
    cause = _CAUSES.get(str(file.get("changed_by")))
    match file.get("action"):
        case "create":
            return "not there"
        case "update" if file.get("token") not in (None, "reused"):
            return f"new token; {cause}" if cause else "new token"
        case "update":
            return cause or "differs; nothing on record"
        case "merge":
            return "changed on both sides, merged"
        case "conflict" if cause == _CAUSES["both"]:
            return "changed on both sides, left as it is"
        case "preserved":
            return f"the agent's own; {cause}" if cause else "the agent's own"
        case "conflict":
            return cause or "its owner's, and differs from ours"
        case "absent":
            return "ours alone: a sync creates it"
        case "theirs":
            return "theirs alone"
        case "unsupported":
            return "not taken by this gateway"
    return ""


def show_diffs(files: Files, *, of: str = "") -> None:
    """Print the diff of every file that has one, headed by ``of`` and its name. Credentials are masked when a
    diff is made."""
    for name in sorted(files):
        if diff := files[name].get("diff"):
            say("", Text(plain(of) + plain(name), style="bold"), coloured(str(diff)), verbatim=True)


def coloured(diff: str) -> Text:
    """A unified diff with a style for each kind of line; its two heading lines are dim."""
    shown = Text()
    for number, line in enumerate(diff.splitlines()):
        style = "dim" if number < 2 else _DIFF_STYLES.get(line[:1], "")
        shown.append(("\n" if number else "") + plain(line), style=style)
    return shown
