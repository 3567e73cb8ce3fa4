"""A sync of a gateway on a page: what it came to, or would come to, whom it is about, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.padding import Padding
from rich.text import Text

from worker.cli.console import ago, argument, lines, plain, say, short, took
from worker.cli.job_summary import AgentSummary, JobSummary
from worker.cli.views.files import coloured
from worker.cli.views.jobs import STYLES
from worker.cli.views.sync_agents import Tally, list_of_news, row_of, status_of, tally
from worker.provisioning.sync.result import drifted

MOST_WARNINGS = 12
_CURES = 3
_OPTIONS = ("reset_sessions", "rotate_tokens", "force_bootstrap", "overwrite")


def show_run(job: JobSummary) -> None:
    """The page; one line for a plan with nothing to do."""
    promised = job.options.get("dry_run") is True
    counted = tally(job.agents)
    name = plain(job.gateway_name or job.gateway_id or "the gateway")
    if promised and job.status == "succeeded" and not drifted(job.result or {}):
        main = " and the main agent" if any(row.is_main for row in job.agents) else ""
        paused = f" {counted.paused} paused." if counted.paused else ""
        idle = f"{counted.unchanged} agent{'s' * (counted.unchanged != 1)}"
        say(f"{name}: nothing to do: {idle}{main} as their templates want them.{paused}")
        for warning in _warnings(job):
            say(Text(f"  {plain(warning)}", style="yellow"))
        return
    head = "plan for a sync of " if promised else "sync of "
    aside = ("  nothing was written", "dim") if promised and job.ended else ("", "")
    say(Text.assemble((head + name, "bold"), "  ", (job.status, STYLES.get(job.status, "")), aside))
    facts = lines()
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, value in _facts(job, counted):
        facts.add_row(label, value if isinstance(value, Text) else plain(value))
    say(Padding(facts, (0, 0, 0, 2)))
    listed = list_of_news(job)
    if listed is not None:
        say(Padding(listed, (1, 0, 0, 2)))
    for record in job.agents:
        _show_diffs(record)


def steps_of_run(job: JobSummary) -> Iterator[str]:
    """What an operator does about a sync that did not succeed, in that order."""
    if job.status not in ("partial", "failed", "cancelled"):
        return
    gateway = argument(job.gateway_name) if job.gateway_name else None
    cures = [cure for row in job.agents if (cure := _cure(row)) is not None]
    errors: Sequence[Mapping[str, Any]] = (job.result or {}).get("errors", [])
    general = [str(error["message"]) for error in errors if error.get("agent_id") is None]
    if gateway and any("no main agent" in message for message in general):
        yield f"provisioner main {gateway}"
    if gateway and any(row.status == "not_attempted" for row in job.agents):
        yield f"provisioner doctor {gateway}"
    yield from cures[:_CURES]
    if len(cures) > _CURES:
        yield f"and so on for {len(cures) - _CURES} more"
    yield f"{'then: ' if job.status != 'cancelled' else ''}provisioner retry {short(job.id)}"


def _cure(row: AgentSummary) -> str | None:
    if "rotate_tokens" not in (row.reason or ""):
        return None
    if row.first_provision and not row.is_main:
        return f"provisioner provision {argument(row.name)}"
    return f"provisioner update {argument(row.name)} --rotate-tokens --no-wake"


def summary(counted: Tally, *, promised: bool = False) -> str:
    """``44 of 50 updated (38 needed nothing), 3 skipped, 2 failed``; zeros are left out."""
    if promised:
        changing = counted.updated - counted.unchanged
        first = f"{changing} of {counted.total} would change, {counted.unchanged} need nothing"
    else:
        idle = f" ({counted.unchanged} needed nothing)" if counted.unchanged else ""
        first = f"{counted.updated} of {counted.total} updated{idle}"
    faulty = counted.skipped - counted.paused
    rest = [
        (counted.failed, "failed"),
        (faulty, "skipped"),
        (counted.paused, "paused"),
        (counted.not_attempted, "not attempted"),
        (counted.cancelled, "cancelled"),
    ]
    return ", ".join([first, *(f"{count} {word}" for count, word in rest if count)])


def _facts(job: JobSummary, counted: Tally) -> Iterator[tuple[str, str | Text]]:
    promised = job.options.get("dry_run") is True
    yield "job", str(job.id)
    if job.request_id:
        yield "request", job.request_id
    yield "asked", ago(job.age_s) + (f" by {job.requested_by}" if job.requested_by else "")
    if job.board_name:
        yield "board", job.board_name
    if job.took_s is not None:
        yield "took", ("" if job.ended else "so far ") + took(job.took_s)
    if job.status == "queued":
        behind = "another sync of this gateway is under way" if job.phase == "waiting" else "for a worker"
        yield "waits", behind
    elif not job.ended:
        yield "agents", f"{counted.done} of {counted.total} done"
    if job.cancel_requested_at and not job.ended:
        yield "cancel", "asked for; it takes hold when those at work are done"
    if job.agents:
        yield "" if not job.ended else "agents", summary(counted, promised=promised)
        main = next((row for row in job.agents if row.is_main), None)
        if main is not None:
            yield "main agent", _of_main(main, promised=promised)
        yield "files", _files(counted, promised=promised)
        verb = "would change" if promised else "changed"
        entries = f"{counted.roster} entr{'y' if counted.roster == 1 else 'ies'} {verb}"
        yield "roster", entries if counted.roster else "as it should be"
    for warning in _warnings(job):
        yield "warning", Text(plain(warning), style="yellow")
    if job.error:
        yield ("error" if job.ended else "trouble"), Text(plain(job.error), style="red")
    if promised and job.status in ("succeeded", "partial"):
        yield "do it", _command(job)
    else:
        for number, step in enumerate(steps_of_run(job)):
            yield "next" if number == 0 else "", step


def _of_main(main: AgentSummary, *, promised: bool) -> str:
    word = status_of(main)
    if word == "updated":
        return "would change" if promised else "updated"
    return word or ("needs nothing" if row_of(main).unchanged else main.status)


def _files(counted: Tally, *, promised: bool) -> str:
    parts = [
        f"{counted.written} {'to write' if promised else 'written'}",
        f"{counted.unchanged_files} as they should be",
    ]
    if counted.preserved:
        parts.append(f"{counted.preserved} the agents' own")
    if promised and counted.unsupported:
        parts.append(f"{counted.unsupported} not taken by this gateway")
    return ", ".join(parts)


def _warnings(job: JobSummary) -> list[str]:
    told = list(job.warnings[:MOST_WARNINGS])
    if len(job.warnings) > MOST_WARNINGS:
        told.append(f"and {len(job.warnings) - MOST_WARNINGS} more: provisioner job {short(job.id)} --json")
    return told


def _show_diffs(record: AgentSummary) -> None:
    for name, file in sorted(record.files.items()):
        if diff := file.get("diff"):
            heading = Text(f"{plain(record.name)}: {plain(name)}", style="bold")
            say("", heading, coloured(str(diff)))


def _command(job: JobSummary) -> str:
    command = f"provisioner sync {argument(job.gateway_name or str(job.gateway_id))}"
    if job.board_name and job.board_id:
        command += f" --board {argument(job.board_name)}"
    options = [name for name in _OPTIONS if job.options.get(name)]
    if job.options.get("include_main") is False:
        command += " --no-main"
    return command + "".join(f" --{name.replace('_', '-')}" for name in options)
