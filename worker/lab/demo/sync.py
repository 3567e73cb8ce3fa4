"""The demo's last part: changes a fact that the templates show, and syncs it to every agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.text import Text
from sqlalchemy import Engine, select, text

from models import Agent
from worker.cli.console import plain, took
from worker.cli.job_summary import JobSummary, document
from worker.cli.submit import watch
from worker.cli.views.sync_agents import changed_agents_table
from worker.cli.views.syncs import summary
from worker.gateway.agent_files import AgentFiles
from worker.gateway.dialect import Dialect
from worker.jobs.requests import SyncGateway
from worker.jobs.retry_policy import inline_retrying
from worker.jobs.store.jobs import enqueue
from worker.lab.demo.fleet import Fleet
from worker.lab.demo.report import PATIENCE_S, Calls, count_calls
from worker.lab.demo.stack import DemoFailedError, DemoStack
from worker.lab.demo.steps import Steps
from worker.workspace.identity import openclaw_id, session_key

NEW_OBJECTIVE = "Publish the release notes of version 3 by Monday, every claim in them checked."

Written = Mapping[str, Sequence[str]]
"""The names of written files, by their agent's name."""


@dataclass(frozen=True)
class Synced:
    """The outcome of the demo's last part.

    ``plan``, ``sync``, ``again``: the jobs of the dry run and of the two syncs. ``changed``: the files that
    differ in the gateway's own listings. ``calls``: those of the two syncs; None if calls are not counted.
    """

    plan: JobSummary
    sync: JobSummary
    again: JobSummary
    changed: Written
    calls: tuple[Calls, Calls] | None
    restarted: bool

    def document(self) -> dict[str, Any]:
        """The outcome as a JSON document."""
        sync, again = self.calls or (None, None)
        return {
            "plan": document(self.plan),
            "sync": document(self.sync),
            "again": document(self.again),
            "changed": {name: list(files) for name, files in self.changed.items()},
            "calls": sync.total if sync else None,
            "calls_again": again.total if again else None,
            "config_writes": sync.config_writes if sync else None,
            "restarted": self.restarted,
        }


def change_and_sync(stack: DemoStack, steps: Steps, fleet: Fleet, check: Callable[[], None]) -> Synced:
    """Change the board's goal, plan, sync, and sync again. Raises DemoFailedError if the sync does not change
    exactly what was planned."""
    engine = stack.engine
    with engine.begin() as connection:
        connection.execute(_CHANGE, {"objective": NEW_OBJECTIVE, "gateway_id": fleet.gateway_id})
    steps.heading("The board gets a new goal: what would a sync of the gateway change?")
    quiet = Console(quiet=True)
    with steps.step("plan") as step:
        plan = _run(engine, fleet, quiet, check, dry_run=True)
        step.result = summary(plan.tally, planned=True)
    listed = changed_agents_table(plan)
    if listed is not None:
        steps.block(listed)
    steps.heading("The sync: one job, one row per agent")
    before, boot = _listings(stack, fleet), stack.boot_id()
    first = count_calls(stack.journal)
    sync = _run(engine, fleet, steps.console, check)
    second = count_calls(stack.journal)
    changed = _changed(before, _listings(stack, fleet))
    promised, reported = _reported(plan), _reported(sync)
    if not promised == reported == changed:
        raise DemoFailedError(f"Planned were {promised}, reported {reported}, and changed {changed}.")
    for names, agents in _by_files(changed).items():
        steps.block(Text(f"Changed there: {names} of {', '.join(agents)}; nothing else."))
    restarted = stack.boot_id() != boot
    costs = _between(first, second)
    steps.block(Text(_figures(sync, costs, restarted=restarted)))
    steps.heading("Once more, as a nightly schedule would")
    third = count_calls(stack.journal)
    again = _run(engine, fleet, steps.console, check)
    idle = _between(third, count_calls(stack.journal))
    steps.block(Text(_figures(again, idle, restarted=stack.boot_id() != boot)))
    return Synced(plan, sync, again, changed, (costs, idle) if costs and idle else None, restarted)


def _run(
    engine: Engine, fleet: Fleet, console: Console, check: Callable[[], None], *, dry_run: bool = False
) -> JobSummary:
    request = SyncGateway(
        gateway_id=fleet.gateway_id, include_main=False, dry_run=dry_run, requested_by="demo"
    )
    with engine.begin() as connection:
        job_id = enqueue(connection, request).job_id
    (job,) = watch(engine, [job_id], console, check=check)
    if job.status != "succeeded":
        raise DemoFailedError(f"The sync did not succeed. {job.error}")
    return job


def _listings(stack: DemoStack, fleet: Fleet) -> dict[str, dict[str, tuple[int, int | None]]]:
    """Size and time of every file, by the gateway's own listing, for each agent by its name."""
    client = stack.client()
    hello = client.hello()
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    with stack.engine.connect() as connection:
        rows = connection.execute(
            select(Agent.id, Agent.name, Agent.board_id, Agent.is_board_lead)
            .where(Agent.id.in_(fleet.agents))
            .order_by(Agent.created_at)
        ).all()
    found = {}
    for row in rows:
        listing = inline_retrying(PATIENCE_S)(AgentFiles(client, dialect, _place(row)).live)
        found[row.name] = {name: (file.size, file.updated_at_ms) for name, file in listing.items()}
    return found


def _place(row: Any) -> str:
    agent_id: UUID = row.id
    return openclaw_id(session_key(agent_id, row.board_id, row.is_board_lead))


def _changed(
    before: Mapping[str, Mapping[str, object]], after: Mapping[str, Mapping[str, object]]
) -> Written:
    """Files that are new or not as they were; agents without any are left out."""
    found = {
        agent: sorted(name for name, file in files.items() if before[agent].get(name) != file)
        for agent, files in after.items()
    }
    return {agent: names for agent, names in found.items() if names}


def _reported(job: JobSummary) -> Written:
    found = {
        row.name: sorted(name for name, file in row.files.items() if file["action"] in ("create", "update"))
        for row in job.agents
    }
    return {agent: names for agent, names in found.items() if names}


def _by_files(changed: Written) -> dict[str, list[str]]:
    same: dict[str, list[str]] = {}
    for agent, names in changed.items():
        same.setdefault(plain(", ".join(names)), []).append(plain(agent))
    return same


def _between(before: Calls | None, after: Calls | None) -> Calls | None:
    if before is None or after is None:
        return None
    methods = {name: count - before.by_method.get(name, 0) for name, count in after.by_method.items()}
    return Calls(methods, after.config_writes - before.config_writes, after.restarts - before.restarts)


def _figures(job: JobSummary, calls: Calls | None, *, restarted: bool) -> str:
    written = int((job.result or {}).get("files_written", 0))
    parts = [took(job.took_s), f"{written} file{'s' * (written != 1)} written"]
    if calls is not None:
        parts += [f"{calls.total} calls to the gateway", f"{calls.config_writes} config writes"]
    parts.append("restarted" if restarted else "no restart")
    return ", ".join(parts)


_CHANGE = text("UPDATE boards SET objective = :objective WHERE gateway_id = :gateway_id")
