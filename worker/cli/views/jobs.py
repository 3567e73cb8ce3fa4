"""Jobs in a list, and one job on a page of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.cli.console import (
    ago,
    argument,
    by_reason,
    counted,
    cut_cell,
    fields,
    named,
    plain,
    say,
    short,
    table,
    took,
)
from worker.cli.job_summary import AgentSummary, JobSummary
from worker.cli.options import command_line
from worker.cli.views.files import list_of_files, show_diffs
from worker.jobs.kinds import KINDS
from worker.jobs.requests import AdoptAgent, DeleteAgent, EnsureBoardLead, RollOut
from worker.jobs.states import ReasonCode
from worker.workspace.rendering import OVERRIDE_COLUMNS

STYLES: Mapping[str, str] = {
    "succeeded": "green",
    "partial": "yellow",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "running": "cyan",
}
_BROKEN_COLUMNS: Mapping[str, str] = {
    ReasonCode.BROKEN_IDENTITY_TEMPLATE: OVERRIDE_COLUMNS["IDENTITY.md"],
    ReasonCode.BROKEN_SOUL_TEMPLATE: OVERRIDE_COLUMNS["SOUL.md"],
}
_OF_THE_GATEWAY = (
    ReasonCode.GATEWAY_UNREACHABLE,
    ReasonCode.GATEWAY_REFUSED,
    ReasonCode.RETRIES_EXHAUSTED,
    ReasonCode.NOT_REGISTERED,
)
"""Codes of failures whose cause `provisioner doctor` may find."""
WITHOUT_TOKEN = (ReasonCode.NO_TOKEN, ReasonCode.NOT_REGISTERED)
"""Codes of failures that `--rotate-tokens` cures."""
_TOKENS = {"reused": "kept", "minted": "new", "rotated": "new, in place of the old one"}


def list_of_jobs(jobs: Sequence[JobSummary]) -> Table:
    """One line for each job."""
    shown = table("Job", "What", "About", "Status", "Asked", "Took", last="Error", folds=True, yields="About")
    for job in jobs:
        shown.add_row(
            short(job.id),
            _verb(job),
            cut_cell(subject(job)),
            Text(job.status, style=STYLES.get(job.status, "")),
            ago(job.age_s),
            took(job.took_s),
            cut_cell((job.error or "").split("\n")[0]),
        )
    return shown


def _verb(job: JobSummary) -> str:
    """The command that requests such a job, or shows it; its kind if this version has none."""
    if job.kind == RollOut.kind:
        return "rollout"
    kind = KINDS.get(job.kind)
    return kind.command if kind is not None else job.kind


def show_job(job: JobSummary) -> None:
    """Print a job on a page: what it is, how far it has got, its result, and what to do next."""
    say(heading(job, f"{job.kind.replace('_', ' ')} {subject(job)}"))
    say(fields(_fields(job)))
    if job.is_about_many and job.agents:
        say(Padding(list_of_agents(job.agents), (1, 0, 0, 2)))
    for agent in job.agents:
        if agent.files:
            say(Padding(list_of_files(agent.files), (1, 0, 0, 2)))
            show_diffs(agent.files)


def heading(job: JobSummary, what: str) -> Text:
    """The first line of a page: ``what``, and the job's status."""
    return Text.assemble((plain(what), "bold"), "  ", (job.status, STYLES.get(job.status, "")))


def request_of(job: JobSummary) -> Iterator[tuple[str, str | Text]]:
    """The fields of a page that say which job it is, and who requested it."""
    yield "job", str(job.id)
    if job.request_id:
        yield "request", job.request_id
    yield "asked", ago(job.age_s) + (f" by {job.requested_by}" if job.requested_by else "")


def counts_of(job: JobSummary) -> Iterator[tuple[str, str | Text]]:
    """The fields of a page that say how many tries failed, and how many workers died at it."""
    most = ", the most for one agent" if job.is_about_many else ""
    if job.tries:
        yield "tries", f"{job.tries} failed and were repeated{most}"
    if job.crashes:
        yield "crashes", f"{job.crashes} of the workers that had it died{most}"


def _fields(job: JobSummary) -> Iterator[tuple[str, str | Text]]:
    yield from request_of(job)
    where = " on ".join(name for name in (job.board_name, job.gateway_name) if name)
    if where:
        yield "board" if job.board_name else "gateway", where
    if job.is_about_many:
        yield "agents", f"{job.agents_done} of {job.agents_total} done"
    else:
        for agent in job.agents:
            if agent.openclaw_id:
                yield "agent", f"{agent.openclaw_id} on the gateway"
            if not job.ended:
                yield "phase", phase_and_reason(agent)
    if job.status == "queued" and not job.wait_reason:
        yield "phase", "waiting for a worker"
    if job.cancel_requested_at and not job.ended:
        yield "cancel", "asked for; it takes hold when the worker that has it is done"
    if job.took_s is not None:
        begun = f", begun after {took(job.waited_s)}" if job.waited_s and job.waited_s >= 2 else ""
        yield "took", ("" if job.ended else "so far ") + took(job.took_s) + begun
    yield from counts_of(job)
    yield from webhook_of(job)
    yield from _outcome(job)


def webhook_of(job: JobSummary) -> Iterator[tuple[str, str | Text]]:
    """The field of a page that shows whether the job's webhook has been called."""
    webhook = job.webhook
    if webhook is None:
        return
    if webhook.status == "delivered":
        yield "webhook", f"{webhook.name} was called"
    elif webhook.error is None:
        yield "webhook", f"{webhook.name} is called " + ("next" if job.ended else "when the job has ended")
    else:
        state = "did not accept" if webhook.status == "failed" else "has not accepted"
        attempts = counted(webhook.attempts, "attempt")
        text = f"{webhook.name} {state} the message, after {attempts}: {webhook.error}"
        yield "webhook", Text(plain(text), style="yellow")


def _outcome(job: JobSummary) -> Iterator[tuple[str, str | Text]]:
    result = job.result or {}
    if "token" in result:
        yield "token", _TOKENS.get(str(result["token"]), str(result["token"]))
    if "created" in result and job.kind == EnsureBoardLead.kind:
        yield "lead", "made" if result["created"] else "there was one"
    if "removed" in result:
        yield "removed", removed(job, "the gateway")
    if "woken" in result:
        yield "woken", "yes" if result["woken"] else "no"
    if result.get("workspace_path"):
        yield "workspace", str(result["workspace_path"])
    if job.kind == DeleteAgent.kind and result.get("bundle"):
        yield "bundle", f"{short(result['bundle'])}, kept for 30 days: provisioner bundles"
    left = [(str(one["what"]), str(one["why"])) for one in result.get("not_restored") or ()]
    for number, each in enumerate(by_reason(left)):
        yield "not restored" if number == 0 else "", Text(plain(each), style="yellow")
    for warning in job.every_warning:
        yield "warning", Text(plain(warning), style="yellow")
    if job.error:
        yield "error", Text(plain(job.error), style="red")
    for number, step in enumerate(next_steps(job)):
        yield "next" if number == 0 else "", step


def removed(job: JobSummary, gateway: str) -> str:
    """Whether a delete found the agent, and whether anything is left of it: the warnings say what."""
    if not (job.result or {}).get("removed"):
        return (
            f"nothing from {gateway}: see the warnings" if job.every_warning else f"it was not on {gateway}"
        )
    return f"from the roster of {gateway}, but see the warnings" if job.every_warning else f"from {gateway}"


def phase_and_reason(agent: AgentSummary) -> str:
    """The step that is under way, or why the agent waits and for how long."""
    if agent.in_hand or agent.due_in_s is None:
        return agent.phase or "begun"
    wait = f", again in {took(agent.due_in_s)}" if agent.due_in_s > 2 and agent.phase != "roster" else ""
    return f"{agent.reason or 'waiting for a worker'}{wait}"


def next_steps(job: JobSummary) -> Iterator[str]:
    """What an operator can do about a job that failed, wholly or in part, in the order in which to do it."""
    if job.status not in ("failed", "partial"):
        return
    first = []
    if column := _BROKEN_COLUMNS.get(job.reason_code or ""):
        first.append(f"correct agents.{column} of {job.agent_name or 'the agent'}")
    if job.reason_code == ReasonCode.BROKEN_LAYER:
        first.append("provisioner template set and promote a version without that, or template revert")
    if job.gateway_name and job.reason_code == ReasonCode.REWRITE_REFUSED:
        first.append(f"provisioner gateway allow-rewrite {argument(job.gateway_name)}")
    elif job.gateway_name and job.reason_code in _OF_THE_GATEWAY:
        first.append(f"provisioner doctor {argument(job.gateway_name)}")
    yield from first
    if again := _again(job):
        yield f"{'then: ' if first else ''}{again}"


def _again(job: JobSummary) -> str | None:
    """The command that repeats the request; None if its target is gone."""
    kind = KINDS.get(job.kind)
    if kind is None or not getattr(job, kind.target.replace("_id", "_name")):
        return None
    command = command_line(job, but={"diff"})
    missing = job.reason_code in WITHOUT_TOKEN and job.options.get("rotate_tokens") is False
    return f"{command} --rotate-tokens" if missing else command


def list_of_agents(agents: Sequence[AgentSummary]) -> Table:
    """The outcome of each agent of a job; those that did not succeed come first."""
    shown = table("Agent", "Status", last="Why")
    for agent in sorted(agents, key=lambda agent: (agent.status == "succeeded", agent.name)):
        why = agent.reason or "" if agent.status != "running" else phase_and_reason(agent)
        shown.add_row(plain(agent.name), Text(agent.status, style=STYLES.get(agent.status, "")), plain(why))
    return shown


def _gateways_of(job: JobSummary) -> str | None:
    """The gateway; of a roll-out over several all of them, or how many they are where only that is known."""
    further = job.options.get("gateways") or ()
    if not further or not job.gateway_name:
        return job.gateway_name
    return named(job.rollout.gateways) if job.rollout else f"{job.gateway_name} and {len(further)} more"


def subject(job: JobSummary) -> str:
    """The name of what the job is about, or its id if no name is known."""
    adopts = job.kind == AdoptAgent.kind
    names = [
        agent.name
        for agent in job.agents
        if agent.agent_id == job.agent_id or (adopts and agent.name != str(agent.agent_id))
    ]
    return (
        job.agent_name
        or (names[0] if names else None)
        or (str(job.options.get("openclaw_id")) if adopts else None)
        or str(job.agent_id or job.board_name or _gateways_of(job) or "")
    )
