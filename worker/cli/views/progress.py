"""How far a job has got, in words."""

from __future__ import annotations

from collections.abc import Sequence

from worker.cli.console import counted, needing_nothing, plain
from worker.cli.job_summary import JobSummary
from worker.cli.views.jobs import phase_and_reason, removed
from worker.jobs.requests import RollOut
from worker.jobs.states import Step
from worker.workspace.actions import WRITES

NO_WORKER = "No worker has picked this up. Is `celery -A worker.app worker` running against this database?"
NO_WORKER_AFTER_S = 5.0
_BEFORE_AGENTS = (Step.LOOK, Step.ROSTER, Step.COMPARE)
"""Steps of a sync in which no worker has any of its agents."""


def progress(job: JobSummary) -> str:
    """How far a job other than a sync has got, in a few words."""
    if job.ended:
        return plain(job.error or _summary(job)).split("\n")[0]
    if job.kind == RollOut.kind and job.wait_reason:
        return plain(job.wait_reason)
    if not job.agents:
        return "waiting for a worker"
    if job.is_about_many:
        return f"{job.agents_done} of {job.agents_total} agents done"
    return plain(phase_and_reason(job.agents[0]))


def _summary(job: JobSummary) -> str:
    result = job.result or {}
    if "removed" in result and job.status == "succeeded":
        there = result["removed"] or job.every_warning
        return f"removed {removed(job, 'its gateway')}" if there else removed(job, "its gateway")
    if "updated" in result and job.status == "succeeded":
        return f"{counted(result['updated'], 'agent')} as their rows want them"
    if "provision_job_id" in result:
        return "made" if result["created"] else "there was one"
    if "rings" in result and not result["agents_total"]:
        return "nothing changes for any agent"
    if "rings" in result and not result.get("dry_run"):
        return f"{counted(result['agents_reached'], 'agent')} in {counted(len(result['rings']), 'ring')}"
    if result.get("dry_run"):
        return "planned, nothing written"
    if "released" in result:
        return "follows its templates again" if result["released"] else "nothing was held"
    if "left_out" in result:
        return counted(len(result["jobs"]), "agent")
    actions = [str(file.get("action")) for agent in job.agents for file in agent.files.values()]
    written = sum(action in WRITES for action in actions)
    parts = [f"{counted(written, 'file')} written" if written else "no file differed"]
    if result.get("woken"):
        parts.append("woken")
    if job.warnings:
        parts.append(counted(len(job.warnings), "warning"))
    return job.status if job.status != "succeeded" else ", ".join(parts)


def counts(job: JobSummary) -> str:
    """The counts, as ``30 need nothing, 3 changed, 1 failed``; zeros are left out, but the text is never
    empty."""
    if job.status == "queued":
        return "not begun yet"
    tally = job.tally
    first = [needing_nothing(tally.unchanged)] if tally.unchanged else []
    parts = [
        (tally.changed, "would change" if job.dry_run else "changed"),
        (tally.failed, "failed"),
        (tally.skipped, "skipped"),
        (tally.paused, "paused"),
        (tally.not_attempted, "not attempted"),
        (tally.cancelled, "cancelled"),
    ]
    nothing_yet = "no agent to sync" if job.ended else "none done yet"
    return ", ".join([*first, *(f"{count} {word}" for count, word in parts if count)]) or nothing_yet


def doing(job: JobSummary) -> str:
    """Which agents a sync works on, or what it waits for."""
    tally = job.tally
    if job.status == "queued":
        waits = job.phase == Step.WAITING
        if job.wait_reason:
            return job.wait_reason
        return "waits for another sync of this gateway" if waits else "waiting for a worker"
    if job.wait_reason:
        return job.wait_reason
    if job.phase == Step.LOOK:
        return "looking at the gateway"
    if job.phase == Step.COMPARE:
        return "comparing its agents with what is on record of them"
    if job.phase == Step.ROSTER:
        return "waiting for the roster writer"
    if is_at_work(job):
        names = ", ".join(f"{agent.name} ({agent.what})" for agent in tally.at_work)
        more = tally.in_hand - len(tally.at_work)
        return f"at work: {names}{f' and {more} more' if more > 0 else ''}"
    if tally.waiting:
        return f"{tally.waiting} wait: {tally.waits_for}"
    return "the main agent" if tally.done >= tally.total and tally.main else ""


def is_at_work(job: JobSummary) -> bool:
    """Whether workers have agents of a running sync, and nothing keeps it waiting."""
    waits = job.status == "queued" or job.wait_reason or job.phase in _BEFORE_AGENTS
    return not waits and bool(job.tally.at_work)


def gateway_of(job: JobSummary) -> str:
    return job.gateway_name or str(job.gateway_id or "")


def without_worker(jobs: Sequence[JobSummary]) -> bool:
    """Whether all of them have been queued for so long that a worker seems to be missing."""
    return bool(jobs) and all(
        job.status == "queued"
        and job.phase != Step.WAITING
        and not job.wait_reason
        and job.age_s > NO_WORKER_AFTER_S
        for job in jobs
    )
