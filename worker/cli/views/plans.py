"""The plan of a dry run: what an update would change, who made it differ, and how to go on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.padding import Padding
from rich.text import Text

from worker.cli.console import fields, plain, say
from worker.cli.job_summary import JobSummary
from worker.cli.options import command_line
from worker.cli.views.files import ACTION_STYLES, Files, planned_files, show_diffs
from worker.cli.views.jobs import subject
from worker.jobs.requests import AdoptAgent
from worker.workspace.actions import WRITES

_TOKENS = {"reused": "kept", "new": "a new one", "minted": "a new one", "rotated": "a new one"}


def show_plan(job: JobSummary) -> None:
    """Print the plan on a page, or in one line if there is nothing to do."""
    result = job.result or {}
    files: Files = result.get("files") or {}
    name = plain(subject(job) or "the agent")
    if nothing_to_do(result) and not _adopts(job):
        wake = ": an update would only wake it" if job.options.get("wake") else ""
        say(f"{name}: nothing to do{wake}.")
        for warning in job.every_warning:
            say(Text(f"  {plain(warning)}", style="yellow"))
        return
    say(Text.assemble((f"plan for {name}", "bold"), ("  nothing was written", "dim")))
    say(fields(_fields(job, result)))
    if files:
        say(Padding(planned_files(files), (1, 0, 0, 2)))
    show_diffs(files)


def nothing_to_do(result: Mapping[str, Any]) -> bool:
    """Whether an update would write nothing: no file, no roster entry, no token."""
    files: Files = result.get("files") or {}
    roster = (result.get("roster") or {}).get("action", "unchanged")
    writes = any(file.get("action") in WRITES for file in files.values())
    return roster == "unchanged" and not writes and result.get("token") in (None, "reused")


def roster_changes(changes: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """A merge patch as lines such as ``heartbeat.every = "20m"``, one for each value; null removes a key."""
    for key, value in changes.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from roster_changes(value, f"{name}.")
        elif value is None:
            yield f"{name} removed"
        else:
            yield f"{name} = {json.dumps(value, ensure_ascii=False)}"


def _fields(job: JobSummary, result: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    if result.get("openclaw_id"):
        yield "agent", f"{result['openclaw_id']} on {job.gateway_name or 'its gateway'}"
    roster = result.get("roster") or {}
    action = str(roster.get("action", "unchanged"))
    yield "roster", Text(action, style=ACTION_STYLES.get(action, "dim"))
    for line in roster_changes(roster.get("changes") or {}):
        yield "", line
    token = result.get("token")
    yield "token", _TOKENS.get(str(token), "none") if token else "none"
    if job.options.get("wake"):
        yield "woken", "yes, at the end"
    for warning in job.every_warning:
        yield "warning", Text(plain(warning), style="yellow")
    again = command_line(job, but={"dry_run", "diff"}) or ""
    yield "do it", f"{again} --yes" if _adopts(job) else again


def _adopts(job: JobSummary) -> bool:
    """Whether the job takes an agent under care: that is something to do even if nothing is written."""
    return job.kind == AdoptAgent.kind
