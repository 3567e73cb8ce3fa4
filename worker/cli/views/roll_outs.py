"""A roll-out on a page: its rings, how their agents are, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.cli.console import counted, fields, lines, named, plain, say, short, table, took
from worker.cli.job_summary import JobSummary, RollOutAgent
from worker.cli.options import command_line
from worker.cli.views.jobs import counts_of, heading, request_of, webhook_of
from worker.jobs.states import RolloutState

_STATES = ("healthy", "unknown", "failed", "gone", "delivered", "delivering", "waiting")
_MOST_NAMES = 6
_MOST_REASONS = 12


def show_roll_out(job: JobSummary) -> None:
    """Print the page."""
    what = "plan for a roll-out" if job.dry_run else "roll-out"
    gateways = named(list(job.rollout.gateways)) if job.rollout and job.rollout.gateways else job.gateway_name
    first = heading(job, f"{what} to {gateways or 'its gateways'}")
    say(first.append("  nothing was written", "dim") if job.dry_run and job.ended else first)
    say(fields(_fields(job)))
    rings = rings_of(job)
    if rings:
        say(Padding(_table(rings, planned=job.dry_run), (1, 0, 0, 2)))
    troubled = [each for each in (job.rollout.agents if job.rollout else ()) if each.reason]
    troubled = [each for each in troubled if each.state != RolloutState.HEALTHY]
    if troubled:
        say(Padding(_reasons(troubled[:_MOST_REASONS]), (1, 0, 0, 2)))


def rings_of(job: JobSummary) -> Sequence[Mapping[str, Any]]:
    """The rings as in the job's result; of one that is under way, as they are now."""
    planned = (job.result or {}).get("rings") or []
    if planned or job.rollout is None:
        return planned
    rings: dict[int, list[RollOutAgent]] = {}
    for each in job.rollout.agents:
        rings.setdefault(each.ring, []).append(each)
    return [
        {
            "ring": ring,
            "agents": len(agents),
            "names": [each.name for each in agents],
            **{state: sum(each.state == state for each in agents) for state in _STATES},
        }
        for ring, agents in sorted(rings.items())
    ]


def _table(rings: Sequence[Mapping[str, Any]], *, planned: bool) -> Table:
    shown = table("Ring", "Agents", last="Who") if planned else table("Ring", "Agents", "State", last="Who")
    for ring in rings:
        states = ", ".join(f"{ring[state]} {state}" for state in _STATES if ring.get(state))
        names = [plain(name) for name in ring.get("names", ())]
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        who = ", ".join(names[:_MOST_NAMES]) + more
        cells = [str(ring["ring"]), str(ring["agents"]), *([] if planned else [states]), who]
        shown.add_row(*cells)
    return shown


def _reasons(agents: Sequence[RollOutAgent]) -> Table:
    shown = lines()
    for each in agents:
        style = "red" if each.state == RolloutState.FAILED else "yellow"
        shown.add_row(Text(f"{plain(each.name)} {each.state}: {plain(each.reason)}", style=style))
    return shown


def _fields(job: JobSummary) -> Iterator[tuple[str, str | Text]]:
    yield from request_of(job)
    if job.took_s is not None:
        yield "took", ("" if job.ended else "so far ") + took(job.took_s)
    result = job.result or {}
    if job.rollout is not None and not job.ended and job.rollout.rings:
        paused = ", paused after this one" if job.rollout.paused else ""
        yield "ring", f"{job.rollout.ring} of {job.rollout.rings}{paused}"
        if job.rollout.wait_until is not None:
            yield "waits until", f"{job.rollout.wait_until.astimezone(UTC):%H:%M:%S} UTC"
    if not job.ended and job.wait_reason:
        yield "now", plain(job.wait_reason)
    planned = result if result.get("rings") or job.status == "succeeded" else None
    if job.ended and planned is not None:
        yield "agents", _counts(result, planned=job.dry_run)
    counts = result.get("restarts") or (job.rollout.plan if job.rollout else {}).get("restarts")
    if planned is not None or (job.rollout is not None and job.rollout.rings):
        yield "restarts", _restarts(counts)
    for names in (result.get("left_out") or (job.rollout.plan if job.rollout else {}).get("left_out") or ())[
        :3
    ]:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield "not in ring 1", f"nobody with the change of {', '.join(map(plain, names[:3]))}{more}"
    yield from counts_of(job)
    yield from webhook_of(job)
    for warning in job.warnings:
        yield "warning", Text(plain(warning), style="yellow")
    if job.ended and job.error:
        yield "error", Text(plain(job.error), style="red")
    for number, step in enumerate(_steps(job, result)):
        yield "next" if number == 0 else "", step


def _with_names(job: JobSummary) -> JobSummary:
    """The job with names of gateways in place of their ids, as they are typed."""
    names = list(job.rollout.gateways) if job.rollout is not None else []
    further = [name for name in names if name != job.gateway_name]
    return replace(job, options={**job.options, "gateways": further or None})


def _counts(result: Mapping[str, Any], *, planned: bool) -> str:
    total = int(result.get("agents_total") or 0)
    if not total:
        return "nothing changes for any"
    if planned:
        return f"{counted(total, 'agent')} would change, in {counted(len(result.get('rings') or ()), 'ring')}"
    unjudged = sum(ring.get("delivered") or 0 for ring in result.get("rings") or ())
    parts = [
        (unjudged, "with the change, not judged"),
        (result.get("agents_healthy"), "healthy"),
        (result.get("agents_unknown"), "unknown"),
        (result.get("agents_failed"), "failed"),
        (result.get("agents_gone"), "gone"),
        (result.get("agents_left"), "not reached"),
    ]
    return f"{total}: " + ", ".join(f"{count} {word}" for count, word in parts if count)


def _restarts(counts: Mapping[str, Any] | None) -> str:
    if not counts:
        return "none: no gateway restarts for this"
    return ", ".join(f"{plain(name)} {count}, once a ring at most" for name, count in counts.items())


def _steps(job: JobSummary, result: Mapping[str, Any]) -> Iterator[str]:
    if job.dry_run and job.status == "succeeded" and result.get("agents_total"):
        yield command_line(_with_names(job), but={"dry_run", "diff"}) or ""
    elif not job.ended and not job.dry_run:
        paused = job.rollout is not None and job.rollout.paused
        yield f"provisioner rollout {'resume' if paused else 'pause'} {short(job.id)}, or: rollout abort"
    elif job.status in ("failed", "cancelled") and result.get("agents_reached"):
        if result.get("rollback_job_id"):
            yield f"provisioner job {short(result['rollback_job_id'])}"
        else:
            yield f"provisioner rollback --job {short(job.id)}"
