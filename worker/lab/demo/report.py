"""The demo's report: what is on the gateway at the end, by the gateway's own answers, and what it took."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine, select

from models import Agent
from worker.cli.console import lines, plain, size, table, took
from worker.cli.job_summary import JobSummary, document
from worker.gateway.agent_files import AgentFiles
from worker.gateway.client import GatewayClient
from worker.gateway.dialect import Dialect
from worker.gateway.roster_reading import read_roster
from worker.jobs.retry_policy import inline_retrying
from worker.lab.demo.fleet import Fleet
from worker.lab.demo.stack import DemoFailedError
from worker.lab.demo.steps import Steps
from worker.masking import mask
from worker.workspace.identity import openclaw_id, session_key
from worker.workspace.tokens import find_token, verify_token

PATIENCE_S = 20.0
"""Limit on the seconds for which reading from the gateway is retried."""
_HEAD_LINES = 3
_BUSIEST = 3
_CREDENTIALS = ("BASE_URL=", "AUTH_TOKEN=")


@dataclass(frozen=True)
class Calls:
    """Counts from the simulator's journal: answered calls by method, config writes, restarts."""

    by_method: Mapping[str, int]
    config_writes: int
    restarts: int

    @property
    def total(self) -> int:
        """All calls but the handshakes."""
        return sum(count for method, count in self.by_method.items() if method != "connect")


@dataclass(frozen=True)
class FleetState:
    """What is on the gateway: its roster, and the files of one agent.

    ``files``: sizes in bytes, by name. ``excerpt``: lines of AGENTS.md, with the token masked.
    """

    roster: Sequence[Mapping[str, Any]]
    agent: str
    files: Mapping[str, int]
    excerpt: Sequence[str]
    token_matches: bool
    restarted: bool


def count_calls(journal: Path | None) -> Calls | None:
    """Count the journal's entries; None if there is no journal."""
    if journal is None:
        return None
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    methods = Counter(line["method"] for line in lines if line["event"] == "call")
    events = Counter(line["event"] for line in lines)
    return Calls(dict(methods), events["config-write"], events["restart"])


def inspect_fleet(client: GatewayClient, engine: Engine, fleet: Fleet, *, restarted: bool) -> FleetState:
    """Read the roster, and the workspace of the first agent after the lead. Raises GatewayError."""
    hello = client.hello()
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    live = read_roster(dialect, lambda: client.call("config.get"), lambda: client.call("agents.list"))
    with engine.connect() as connection:
        agent = connection.execute(
            select(Agent.id, Agent.name, Agent.board_id, Agent.agent_token_hash).where(
                Agent.id == fleet.agents[1]
            )
        ).one()
    files = AgentFiles(client, dialect, openclaw_id(session_key(agent.id, agent.board_id, False)))
    # At work on its first message, an agent's workspace is not always to be had (2026.9.6).
    content = inline_retrying(PATIENCE_S)(files.read, ["AGENTS.md"])["AGENTS.md"].content or ""
    listed = inline_retrying(PATIENCE_S)(files.live)
    token = find_token(content, section=dialect.credentials_in == "AGENTS.md")
    return FleetState(
        roster=_roster(live.document["agents"]),
        agent=agent.name,
        files={name: file.size for name, file in sorted(listed.items())},
        excerpt=_excerpt(mask(content, [token] if token else [])),
        token_matches=token is not None and verify_token(token, agent.agent_token_hash),
        restarted=restarted,
    )


def show_fleet_state(
    steps: Steps, state: FleetState, jobs: Sequence[JobSummary], seconds: float, calls: Calls | None
) -> None:
    """Print the roster, the files, the excerpt and the numbers."""
    steps.heading("On the gateway now, by its own config.get")
    roster = table("Agent", "Heartbeat", last="Id there")
    for entry in state.roster:
        every = (entry.get("heartbeat") or {}).get("every")
        beat = f"every {every}" if every else "none"
        roster.add_row(plain(entry.get("name") or "its own"), beat, plain(entry["id"]))
    steps.block(roster)
    steps.block(Text(f"Each in a workspace of its own: {_pattern(state.roster)}", style="dim"))
    for job in jobs:
        for warning in job.every_warning:
            steps.block(Text(plain(f"Warning of {job.agent_name}'s job: {warning}")))
    steps.heading(f"{state.agent}'s workspace, by a listing of the gateway")
    steps.block(_files(state, next(job for job in jobs if job.agent_name == state.agent)))
    steps.heading(f"A few lines of {state.agent}'s AGENTS.md")
    for line in state.excerpt:
        steps.block(Text(plain(line), style="dim", no_wrap=True, overflow="ellipsis"))
    if not state.token_matches:
        raise DemoFailedError("The token in the workspace does not match the hash in Postgres.")
    steps.block(Text("The token there matches the hash in Postgres; it is stored nowhere else."))
    steps.heading("What it took")
    for figure in _figures(state, jobs, seconds, calls):
        steps.block(Text(figure))


def document_of(
    gateway: str, state: FleetState, jobs: Sequence[JobSummary], seconds: float, calls: Calls | None
) -> dict[str, Any]:
    """The report as a JSON document."""
    return {
        "gateway": gateway,
        "seconds": round(seconds, 2),
        "jobs": [document(job) for job in jobs],
        "roster": list(state.roster),
        "files": dict(state.files),
        "token_matches": state.token_matches,
        "restarted": state.restarted,
        "calls": calls.total if calls else None,
        "config_writes": calls.config_writes if calls else None,
    }


def _figures(state: FleetState, jobs: Sequence[JobSummary], seconds: float, calls: Calls | None) -> list[str]:
    slowest = max((job.took_s or 0.0) for job in jobs)
    lines = [f"{took(seconds)} for {len(jobs)} agents, the slowest {took(slowest)}"]
    if calls is not None:
        busiest = sorted(calls.by_method.items(), key=lambda item: -item[1])
        named = ", ".join(f"{method} {count}" for method, count in busiest[:_BUSIEST] if method != "connect")
        lines.append(f"{calls.total} calls to the gateway, mainly {named}")
        writes = f"{calls.config_writes} config write{'s' * (calls.config_writes != 1)}"
        lines.append(f"{writes} for all of them, {calls.restarts} restarts of the gateway")
    else:
        lines.append(f"the gateway {'restarted' if state.restarted else 'did not restart'}")
    return lines


def _roster(agents: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed: list[Mapping[str, Any]] = [
        {"id": key, **entry} for key, entry in (agents.get("entries") or {}).items()
    ]
    return listed or [*(agents.get("list") or [])]


def _files(state: FleetState, job: JobSummary) -> Table:
    """The listing, and what the job wrote that no listing shows."""
    shown = lines()
    shown.add_column()
    shown.add_column(justify="right")
    shown.add_column(style="dim")
    for name, octets in state.files.items():
        shown.add_row(plain(name), size(octets), "")
    for name, file in sorted(job.agents[0].files.items()):
        if file.get("action") in ("create", "update") and name not in state.files:
            where = "as the heartbeat scratch" if name == "HEARTBEAT.md" else "not listed by this release"
            shown.add_row(plain(name), size(int(file["size"])), where)
    return shown


def _pattern(roster: Sequence[Mapping[str, Any]]) -> str:
    ours = next((entry for entry in roster if entry["id"] in (entry.get("workspace") or "")), None)
    return str(ours["workspace"]).replace(str(ours["id"]), "<id>") if ours else "none"


def _excerpt(text: str) -> list[str]:
    """The first lines that say something, and the lines with the credentials."""
    lines = [line for line in text.splitlines() if line.strip()]
    credentials = [line for line in lines if line.startswith(_CREDENTIALS)]
    return [*lines[:_HEAD_LINES], "...", "## Tools", "...", *credentials, "..."]


def show_next(steps: Steps) -> None:
    """Print what to look at next."""
    shown = lines()
    shown.add_row("make demo GATEWAY=openclaw", "the same on a real OpenClaw, from npm")
    shown.add_row("README.md", "with your own database and gateway")
    shown.add_row("provisioner --help", "all commands")
    steps.heading("Where to look next")
    steps.block(shown)
