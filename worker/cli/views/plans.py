"""How a dry run looks: what an update would change, who made it differ, and how to go on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.cli.console import argument, lines, plain, say, size
from worker.cli.job_summary import JobSummary
from worker.cli.views.files import show_diffs
from worker.cli.views.jobs import warnings_of

Files = Mapping[str, Mapping[str, Any]]

CAUSES: Mapping[str, str] = {
    "templates": "templates or facts changed",
    "agent": "changed on the gateway",
    "both": "changed on both sides",
}
_TOKENS = {"reused": "kept", "new": "a new one", "minted": "a new one", "rotated": "a new one"}
_WRITES = ("create", "update")
_ACTION_STYLES = {"create": "green", "update": "yellow"}
_OPTIONS = ("rotate_tokens", "overwrite", "force_bootstrap")


def show_plan(job: JobSummary) -> None:
    """A dry run that succeeded, on a page; in one line where there is nothing to do."""
    result = job.result or {}
    files: Files = result.get("files") or {}
    name = plain(job.agent_name or job.agent_id or "the agent")
    if nothing_to_do(result):
        wake = ": an update would only wake it" if job.options.get("wake") else ""
        say(f"{name}: nothing to do{wake}.")
        for warning in warnings_of(job):
            say(Text(f"  {plain(warning)}", style="yellow"))
        return
    say(Text.assemble((f"plan for {name}", "bold"), ("  nothing was written", "dim")))
    facts = lines()
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, value in _facts(job, result):
        facts.add_row(label, value)
    say(Padding(facts, (0, 0, 0, 2)))
    if files:
        say(Padding(planned_files(files), (1, 0, 0, 2)))
    show_diffs(files)


def nothing_to_do(result: Mapping[str, Any]) -> bool:
    """Whether a run would write nothing: no file, no roster entry, no token."""
    files: Files = result.get("files") or {}
    roster = (result.get("roster") or {}).get("action", "unchanged")
    writes = any(file.get("action") in _WRITES for file in files.values())
    return roster == "unchanged" and not writes and result.get("token") in (None, "reused")


def planned_files(files: Files) -> Table:
    """Per file the action, and who made it differ; what is left alone comes last."""
    shown = Table("File", "Action", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("Size", justify="right")
    shown.add_column("Why")
    for name in sorted(files, key=lambda name: (_order(files[name]), name)):
        file = files[name]
        action = str(file.get("action", ""))
        style = _ACTION_STYLES.get(action, "dim")
        shown.add_row(
            plain(name), Text(action, style=style), size(int(file.get("size") or 0)), Text(_why(file), style)
        )
    return shown


def roster_changes(changes: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """A merge patch as ``heartbeat.every = "20m"``, a line for each value; null takes a key away."""
    for key, value in changes.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from roster_changes(value, f"{name}.")
        elif value is None:
            yield f"{name} taken away"
        else:
            yield f"{name} = {json.dumps(value, ensure_ascii=False)}"


def _facts(job: JobSummary, result: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    if result.get("openclaw_id"):
        yield "agent", Text(f"{plain(result['openclaw_id'])} on {plain(job.gateway_name or 'its gateway')}")
    roster = result.get("roster") or {}
    action = str(roster.get("action", "unchanged"))
    yield "roster", Text(action, style=_ACTION_STYLES.get(action, "dim"))
    for line in roster_changes(roster.get("changes") or {}):
        yield "", Text(plain(line))
    token = result.get("token")
    yield "token", Text(_TOKENS.get(str(token), "none") if token else "none")
    if job.options.get("wake"):
        yield "woken", Text("yes, at the end")
    for warning in warnings_of(job):
        yield "warning", Text(plain(warning), style="yellow")
    yield "do it", Text(_command(job))


def _order(file: Mapping[str, Any]) -> int:
    ways = ("create", "update", "unchanged", "preserved", "unsupported")
    action = file.get("action")
    return ways.index(action) if action in ways else len(ways)


def _why(file: Mapping[str, Any]) -> str:
    cause = CAUSES.get(str(file.get("changed_by")))
    match file.get("action"):
        case "create":
            return "not there"
        case "update" if file.get("token") not in (None, "reused"):
            return f"new token; {cause}" if cause else "new token"
        case "update":
            return cause or "differs; nothing on record"
        case "preserved":
            return f"the agent's own; {cause}" if cause else "the agent's own"
        case "unsupported":
            return "not taken by this gateway"
    return ""


def _command(job: JobSummary) -> str:
    verb = job.kind.removesuffix("_agent")
    options = [f"--{name.replace('_', '-')}" for name in _OPTIONS if job.options.get(name)]
    if not job.options.get("wake", True):
        options.append("--no-wake")
    return " ".join(["provisioner", verb, argument(job.agent_name or str(job.agent_id)), *options])
