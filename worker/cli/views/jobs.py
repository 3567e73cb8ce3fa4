"""How jobs look: a line in a list, a page of its own, a row in a live table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.cli.console import ago, argument, counted, lines, marks, plain, say, short, size, table, took
from worker.cli.job_summary import AgentSummary, JobSummary
from worker.cli.views.files import show_diffs
from worker.workspace.rendering import OVERRIDE_COLUMNS

PHASES = ("intent", "roster", "files", "credentials", "wake")
"""The way of a provision or an update, in its order."""
_OTHER_WAYS: Mapping[str, Sequence[str]] = {"delete_agent": ("intent", "roster")}
_BESIDE: Mapping[str, str] = {"leaving": "credentials"}
"""Phases that few jobs have, and the one that each comes after."""
STYLES: Mapping[str, str] = {
    "succeeded": "green",
    "partial": "yellow",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "running": "cyan",
}
_MARKED = {"succeeded": "done", "failed": "failed", "cancelled": "failed", "not_attempted": "failed"}


def list_of_jobs(jobs: Sequence[JobSummary]) -> Table:
    """One line a job, newest first."""
    shown = table("Job", "What", "About", "Status", "Asked", "Took", last="Error")
    for job in jobs:
        shown.add_row(
            short(job.id),
            job.kind.removesuffix("_agent"),
            plain(subject(job)),
            Text(job.status, style=STYLES.get(job.status, "")),
            ago(job.age_s),
            took(job.took_s),
            plain(job.error or "").split("\n")[0],
        )
    return shown


def show_job(job: JobSummary) -> None:
    """A job on a page: what, how far, what came of it, what to do next."""
    head = Text.assemble(
        (f"{job.kind.replace('_', ' ')} ", "bold"),
        (plain(subject(job)), "bold"),
        "  ",
        (job.status, STYLES.get(job.status, "")),
    )
    say(head)
    facts = lines()
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(job):
        facts.add_row(name, value if isinstance(value, Text) else plain(value))
    say(Padding(facts, (0, 0, 0, 2)))
    if _has_many_agents(job) and job.agents:
        say(Padding(list_of_agents(job.agents), (1, 0, 0, 2)))
    for row in job.agents:
        if row.files:
            say(Padding(list_of_files(row.files), (1, 0, 0, 2)))
            show_diffs(row.files)


def _facts(job: JobSummary) -> Iterator[tuple[str, str | Text]]:
    yield "job", str(job.id)
    if job.request_id:
        yield "request", job.request_id
    yield "asked", ago(job.age_s) + (f" by {job.requested_by}" if job.requested_by else "")
    where = " on ".join(name for name in (job.board_name, job.gateway_name) if name)
    if where:
        yield "board" if job.board_name else "gateway", where
    if _has_many_agents(job):
        yield "agents", f"{job.agents_done} of {job.agents_total} done"
    else:
        for row in job.agents:
            if row.openclaw_id:
                yield "agent", f"{row.openclaw_id} on the gateway"
            if not job.ended:
                yield "phase", phase_and_reason(row)
    if job.status == "queued":
        yield "phase", "waiting for a worker"
    if job.cancel_requested_at and not job.ended:
        yield "cancel", "asked for; it takes hold when the worker that has it is done"
    if job.took_s is not None:
        begun = f", begun after {took(job.waited_s)}" if job.waited_s and job.waited_s >= 2 else ""
        yield "took", ("" if job.ended else "so far ") + took(job.took_s) + begun
    if job.attempts:
        yield "crashes", f"{job.attempts} of the workers that had it died"
    yield from _outcome(job)


def _outcome(job: JobSummary) -> Iterator[tuple[str, str | Text]]:
    result = job.result or {}
    if "token" in result:
        yield "token", _TOKENS.get(str(result["token"]), str(result["token"]))
    if "created" in result:
        yield "lead", "made" if result["created"] else "there was one"
    if "removed" in result:
        yield "removed", _removed(job, "the gateway")
    if "woken" in result:
        yield "woken", "yes" if result["woken"] else "no"
    if result.get("workspace_path"):
        yield "workspace", str(result["workspace_path"])
    for warning in warnings_of(job):
        yield "warning", Text(plain(warning), style="yellow")
    if job.error:
        yield "error", Text(plain(job.error), style="red")
    for step in next_steps(job):
        yield "next", step


def _removed(job: JobSummary, gateway: str) -> str:
    """Whether a delete found the agent, and whether nothing is left of it: what could not be removed is a
    warning."""
    if not (job.result or {}).get("removed"):
        return f"it was not on {gateway}"
    return f"from the roster of {gateway}, but see the warnings" if warnings_of(job) else f"from {gateway}"


def warnings_of(job: JobSummary) -> Sequence[str]:
    """The job's warnings; those of its agents while it has none of its own."""
    return job.warnings or [warning for row in job.agents for warning in row.warnings]


_TOKENS = {"reused": "kept", "minted": "new", "rotated": "new, in place of the old one"}


def next_steps(job: JobSummary) -> Iterator[str]:
    """What an operator does about a job that did not succeed."""
    if job.status not in ("failed", "partial"):
        return
    error = job.error or ""
    first = [
        f"correct agents.{column} of {job.agent_name or 'the agent'}"
        for template, column in OVERRIDE_COLUMNS.items()
        if error.startswith(f"The {template} override")
    ]
    if job.gateway_name and error.startswith("A config write would rewrite"):
        first.append(f"provisioner gateway allow-rewrite {argument(job.gateway_name)}")
    elif job.gateway_name and "gateway" in error.lower():
        first.append(f"provisioner doctor {argument(job.gateway_name)}")
    yield from first
    if again := _again(job):
        yield f"{'then: ' if first else ''}provisioner {again}"


def _again(job: JobSummary) -> str | None:
    """The command that asks for the same once more; None for a kind without one, or a target that is gone."""
    verb, name = _COMMANDS.get(job.kind, (None, None))
    target = getattr(job, name) if name else None
    if verb is None or not target:
        return None
    options = " --dry-run" if job.options.get("dry_run") else ""
    if "rotate_tokens" in job.options and (
        job.options["rotate_tokens"] or "rotate_tokens" in (job.error or "")
    ):
        options += " --rotate-tokens"
    return f"{verb} {argument(target)}{options}"


_COMMANDS: Mapping[str, tuple[str, str]] = {
    "provision_agent": ("provision", "agent_name"),
    "update_agent": ("update", "agent_name"),
    "delete_agent": ("delete", "agent_name"),
    "ensure_board_lead": ("lead", "board_name"),
    "provision_gateway_main": ("main", "gateway_name"),
    "sync_heartbeats": ("heartbeats", "gateway_name"),
}


def list_of_agents(agents: Sequence[AgentSummary]) -> Table:
    """How each agent of a job fared; those that did not succeed come first."""
    shown = table("Agent", "Status", last="Why")
    for row in sorted(agents, key=lambda row: (row.status == "succeeded", row.name)):
        why = row.reason or "" if row.status != "running" else phase_and_reason(row)
        shown.add_row(plain(row.name), Text(row.status, style=STYLES.get(row.status, "")), plain(why))
    return shown


def _has_many_agents(job: JobSummary) -> bool:
    return job.agent_id is None and job.kind != "ensure_board_lead"


def list_of_files(files: Mapping[str, Mapping[str, Any]]) -> Table:
    """What became of each file; those that a gateway does not take come last."""
    shown = Table("File", "Action", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("Size", justify="right")
    for name in sorted(files, key=lambda name: (files[name].get("action") == "unsupported", name)):
        file = files[name]
        action = str(file.get("action", ""))
        shown.add_row(
            plain(name),
            Text(action, style="dim" if action in ("unsupported", "unchanged", "preserved") else ""),
            size(int(file.get("size") or 0)),
        )
    return shown


def live_table(jobs: Sequence[JobSummary], console: Console) -> Table:
    """Many agents at work: a row each, its phases as a bar."""
    sign = marks(console)
    shown = lines(pad=2)
    shown.expand = True
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True, overflow="ellipsis", max_width=28)
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True, justify="right", min_width=7)
    shown.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for job in jobs:
        row = job.agents[0] if job.agents else None
        mark = getattr(sign, _MARKED.get(job.status, "busy" if job.agents else "ahead"))
        shown.add_row(
            Text(mark, style=STYLES.get(job.status, "dim")),
            plain(subject(job)) + (" (lead)" if row and row.is_board_lead else ""),
            Text(_bar(job, row, sign.busy, sign.ahead), style="cyan"),
            took(job.took_s),
            Text(progress(job), style="red" if job.status == "failed" else "dim"),
        )
    return shown


def progress(job: JobSummary) -> str:
    """How far a single-agent job is, in a few words."""
    if job.ended:
        return plain(job.error or _summary(job)).split("\n")[0]
    if not job.agents:
        return "waiting for a worker"
    if _has_many_agents(job):
        return f"{job.agents_done} of {job.agents_total} agents done"
    return plain(phase_and_reason(job.agents[0]))


def phase_and_reason(row: AgentSummary) -> str:
    """``files``, or why the row is parked and for how long."""
    if row.in_hand or row.due_in_s is None:
        return row.phase or "begun"
    wait = f", again in {took(row.due_in_s)}" if row.due_in_s > 2 and row.phase != "roster" else ""
    return f"{row.reason or 'waiting for a worker'}{wait}"


def _summary(job: JobSummary) -> str:
    result = job.result or {}
    if "removed" in result and job.status == "succeeded":
        return (
            f"removed {_removed(job, 'its gateway')}" if result["removed"] else _removed(job, "its gateway")
        )
    if "updated" in result and job.status == "succeeded":
        return f"{counted(result['updated'], 'agent')} as their rows want them"
    if "created" in result:
        return "made" if result["created"] else "there was one"
    if result.get("dry_run"):
        return "planned, nothing written"
    actions = [str(file.get("action")) for row in job.agents for file in row.files.values()]
    written = sum(action in ("create", "update") for action in actions)
    parts = [f"{counted(written, 'file')} written" if written else "no file differed"]
    if result.get("woken"):
        parts.append("woken")
    if job.warnings:
        parts.append(f"{len(job.warnings)} warning{'s' * (len(job.warnings) > 1)}")
    return job.status if job.status != "succeeded" else ", ".join(parts)


def _bar(job: JobSummary, row: AgentSummary | None, reached: str, ahead: str) -> str:
    way = _OTHER_WAYS.get(job.kind, PHASES)
    if job.status == "succeeded":
        return reached * len(way)
    phase = row.phase if row else None
    phase = _BESIDE.get(phase or "", phase)
    count = way.index(phase) + 1 if phase in way else 0
    return reached * count + ahead * (len(way) - count)


def subject(job: JobSummary) -> str:
    """Whom or what the job is about, by name as far as one is known."""
    names = [row.name for row in job.agents if row.agent_id == job.agent_id]
    return (
        job.agent_name
        or (names[0] if names else None)
        or str(job.agent_id or job.board_name or job.gateway_name or "")
    )
