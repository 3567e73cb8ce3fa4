"""What became, or would become, of each agent that a job rolls back."""

from __future__ import annotations

from uuid import UUID

from rich.table import Table
from rich.text import Text

from worker.cli.console import counted, note, plain, say, short, table
from worker.cli.job_summary import JobSummary
from worker.cli.options import command_line
from worker.cli.views.files import show_diffs
from worker.cli.views.jobs import STYLES
from worker.workspace.actions import WRITES


def rollbacks_of(whole: JobSummary) -> list[UUID]:
    """The ids of the jobs of its agents."""
    return [UUID(job) for job in (whole.result or {}).get("jobs") or ()]


def show_rollbacks(whole: JobSummary, jobs: list[JobSummary]) -> None:
    """Print what became, or would become, of each agent."""
    say(_table_of(jobs))
    refused = [f"{plain(name_of(job))}: {plain(job.error)}" for job in jobs if job.error and job.ended]
    if refused:
        say("", *refused)
    for job in jobs:
        show_diffs((job.result or {}).get("files") or {}, of=f"{name_of(job)}: ")
    for left in (whole.result or {}).get("left_out") or ():
        note(f"{plain(left['agent_name'] or short(left['agent_id']))} was left out: {left['reason']}.")
    if whole.dry_run:
        say("", "Nothing was written. Do it:", f"  {_again(whole)}")
    else:
        done = counted(sum(job.status == "succeeded" for job in jobs), "agent")
        goes_on = sum(not job.ended for job in jobs)
        if goes_on:
            say("", f"{counted(goes_on, 'rollback')} not done yet.")
        if whole.options.get("release") is True:
            say("", f"{done} released: their templates count again from the next update or sync on.")
        else:
            say("", f"{done} rolled back, and held so until --release.")


def _again(whole: JobSummary) -> str:
    words = (command_line(whole, but={"dry_run", "diff", "gateway_id"}) or "").split()
    return " ".join(words)


def _table_of(jobs: list[JobSummary]) -> Table:
    shown = table("Agent", "Status", "Written", "The agent's own", last="Conflicts")
    for job in jobs:
        files = ((job.result or {}).get("files") or {}).values()
        counts = [
            sum(file.get("action") in actions for file in files)
            for actions in (WRITES, ("preserved",), ("conflict",))
        ]
        shown.add_row(
            plain(name_of(job)),
            Text(job.status, style=STYLES.get(job.status, "")),
            *([""] * len(counts) if job.error else map(str, counts)),
        )
    return shown


def name_of(job: JobSummary) -> str:
    """The agent's name, or its id."""
    return job.agent_name or str(job.agent_id)
