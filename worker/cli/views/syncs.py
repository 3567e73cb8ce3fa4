"""A sync of a gateway on a page: what it did or would do, to which agents, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.padding import Padding
from rich.text import Text

from worker.cli.console import argument, counted, fields, needing_nothing, plain, say, short, took
from worker.cli.job_summary import AgentSummary, JobSummary, Tally
from worker.cli.options import command_line
from worker.cli.views.files import show_diffs
from worker.cli.views.jobs import WITHOUT_TOKEN, counts_of, heading, request_of, webhook_of
from worker.cli.views.sync_agents import changed_agents_table, status_of
from worker.jobs.states import ReasonCode
from worker.sync.result import drifted
from worker.workspace.actions import WRITES

MOST_WARNINGS = 12
_CURES = 3


def show_sync(job: JobSummary) -> None:
    """Print the page, or one line for a plan with nothing to do."""
    name = str(job.gateway_name or job.gateway_id or "the gateway")
    if job.dry_run and job.status == "succeeded" and not drifted(job.result or {}):
        _show_idle(job, plain(name))
        return
    first = heading(job, f"{'plan for a sync' if job.dry_run else 'sync'} of {name}")
    say(first.append("  nothing was written", "dim") if job.dry_run and job.ended else first)
    say(fields(_fields(job)))
    listed = changed_agents_table(job)
    if listed is not None:
        say(Padding(listed, (1, 0, 0, 2)))
    for agent in job.agents:
        show_diffs(agent.files, of=f"{agent.name}: ")


def _show_idle(job: JobSummary, name: str) -> None:
    main = " and the main agent" if job.tally.main else ""
    paused = f" {job.tally.paused} paused." if job.tally.paused else ""
    idle = counted(job.tally.unchanged, "agent")
    say(f"{name}: nothing to do: {idle}{main} as their templates want them.{paused}")
    for warning in _warnings(job):
        say(Text(f"  {plain(warning)}", style="yellow"))


def steps_of_sync(job: JobSummary) -> Iterator[str]:
    """What an operator can do about a sync that did not succeed, what helps most first."""
    if job.status not in ("partial", "failed", "cancelled"):
        return
    gateway = argument(job.gateway_name) if job.gateway_name else None
    cures = [cure for agent in job.agents if (cure := _cure(agent)) is not None]
    wants_main = job.options.get("include_main") is True and job.status != "cancelled"
    if gateway and wants_main and job.result is not None and not any(a.is_main for a in job.agents):
        yield f"provisioner main {gateway}"
    if gateway and any(agent.status == "not_attempted" for agent in job.agents):
        yield f"provisioner doctor {gateway}"
    yield from cures[:_CURES]
    if len(cures) > _CURES:
        yield f"and so on for {len(cures) - _CURES} more"
    yield f"{'then: ' if job.status != 'cancelled' else ''}provisioner retry {short(job.id)}"


def _cure(agent: AgentSummary) -> str | None:
    if agent.reason_code not in WITHOUT_TOKEN:
        return None
    if agent.first_provision and not agent.is_main:
        return f"provisioner provision {argument(agent.name)}"
    return f"provisioner update {argument(agent.name)} --rotate-tokens --no-wake"


def summary(tally: Tally, *, planned: bool = False) -> str:
    """The counts, as ``44 of 50 updated (38 needed nothing), 3 skipped, 2 failed``; zeros are left out."""
    if planned:
        first = f"{tally.changed} of {tally.total} would change, {needing_nothing(tally.unchanged)}"
    else:
        idle = f" ({tally.unchanged} needed nothing)" if tally.unchanged else ""
        first = f"{tally.changed + tally.unchanged} of {tally.total} updated{idle}"
    rest = [
        (tally.failed, "failed"),
        (tally.skipped, "skipped"),
        (tally.paused, "paused"),
        (tally.not_attempted, "not attempted"),
        (tally.cancelled, "cancelled"),
    ]
    return ", ".join([first, *(f"{count} {word}" for count, word in rest if count)])


def _fields(job: JobSummary) -> Iterator[tuple[str, str | Text]]:
    yield from request_of(job)
    if job.board_name:
        yield "board", job.board_name
    if job.took_s is not None:
        yield "took", ("" if job.ended else "so far ") + took(job.took_s)
    if job.status == "queued" and not job.wait_reason:
        behind = "another sync of this gateway is under way" if job.phase == "waiting" else "for a worker"
        yield "waits", behind
    elif not job.ended:
        yield "agents", f"{job.tally.done} of {job.tally.total} done"
    if job.cancel_requested_at and not job.ended:
        yield "cancel", "asked for; it takes hold when those at work are done"
    if job.agents and job.status != "queued":
        yield "" if not job.ended else "agents", summary(job.tally, planned=job.dry_run)
        main = next((agent for agent in job.agents if agent.is_main), None)
        if main is not None:
            yield "main agent", _of_main(main, planned=job.dry_run)
        yield "files", _files(job)
        changed = sum((agent.roster or {}).get("action") in WRITES for agent in job.agents)
        verb = "would change" if job.dry_run else "changed"
        entries = f"{changed} entr{'y' if changed == 1 else 'ies'} {verb}"
        yield "roster", entries if changed else "as it should be"
    yield from counts_of(job)
    yield from webhook_of(job)
    for warning in _warnings(job):
        yield "warning", Text(plain(warning), style="yellow")
    if job.reason_code == ReasonCode.WAITING_FOR_WINDOW and job.wait_reason:
        yield "waits", Text(plain(job.wait_reason))
        return
    for name, trouble in (("error", job.error if job.ended else None), ("trouble", job.wait_reason)):
        if trouble:
            yield name, Text(plain(trouble), style="red")
    if job.dry_run and job.status in ("succeeded", "partial"):
        yield "do it", command_line(job, but={"dry_run", "diff"}) or ""
    else:
        for number, step in enumerate(steps_of_sync(job)):
            yield "next" if number == 0 else "", step


def _of_main(main: AgentSummary, *, planned: bool) -> str:
    word = status_of(main)
    if word == "updated":
        return "would change" if planned else "updated"
    return word or ("needs nothing" if main.row.unchanged else main.status)


def _files(job: JobSummary) -> str:
    actions = Counter(file.get("action") for agent in job.agents for file in agent.files.values())
    parts = [
        f"{sum(actions[action] for action in WRITES)} {'to write' if job.dry_run else 'written'}",
        f"{actions['unchanged']} as they should be",
    ]
    if actions["conflict"]:
        parts.append(f"{actions['conflict']} in conflict")
    if actions["preserved"]:
        parts.append(f"{actions['preserved']} the agents' own")
    if job.dry_run and actions["unsupported"]:
        parts.append(f"{actions['unsupported']} not taken by this gateway")
    return ", ".join(parts)


def _warnings(job: JobSummary) -> list[str]:
    lines = list(job.warnings[:MOST_WARNINGS])
    if len(job.warnings) > MOST_WARNINGS:
        lines.append(f"and {len(job.warnings) - MOST_WARNINGS} more: provisioner job {short(job.id)} --json")
    return lines
