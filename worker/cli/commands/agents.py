"""``provisioner provision|update|delete|main``, jobs about one agent, and ``provisioner agent add|list``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Connection, text

from worker.cli import inventory
from worker.cli.console import Json, ago, emit, note, plain, say, short, table
from worker.cli.environment import engine
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.lookup import find
from worker.cli.submit import (
    REQUESTED_BY,
    Diff,
    ForceBootstrap,
    NoWait,
    NoWake,
    Overwrite,
    RequestId,
    RotateTokens,
    ask,
)
from worker.jobs.requests import DeleteAgent, ProvisionAgent, ProvisionGatewayMain, UpdateAgent
from worker.standalone import NewAgent, add_agent

app = typer.Typer(help="Agents: those there are, and new ones.", no_args_is_help=True)


def provision(
    agent: Annotated[str, typer.Argument(help="Name or id of a board agent.")],
    no_wake: NoWake = False,
    no_reset: Annotated[bool, typer.Option("--no-reset", help="Keep the agent's session.")] = False,
    force_bootstrap: ForceBootstrap = False,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Bring an agent to life on its gateway, and wait until it is. Exit code 1 where that fails."""

    def make(connection: Connection) -> ProvisionAgent:
        return ProvisionAgent(
            agent_id=find(connection, "agent", agent),
            request_id=request,
            requested_by=REQUESTED_BY,
            wake=not no_wake,
            reset_session=not no_reset,
            force_bootstrap=force_bootstrap,
        )

    ask(make, request=request, no_wait=no_wait, as_json=as_json)


def update(
    agent: Annotated[str, typer.Argument(help="Name or id of an agent.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what a run would change, and change nothing.")
    ] = False,
    diff: Diff = False,
    rotate_tokens: RotateTokens = False,
    overwrite: Overwrite = False,
    force_bootstrap: ForceBootstrap = False,
    reset_session: Annotated[
        bool, typer.Option("--reset-session", help="Begin a new session: some releases show new files then.")
    ] = False,
    no_wake: NoWake = False,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Bring an agent's files and its roster entry up to date. Exit code 1 where that fails."""

    def make(connection: Connection) -> UpdateAgent:
        return UpdateAgent(
            agent_id=find(connection, "agent", agent),
            request_id=request,
            requested_by=REQUESTED_BY,
            dry_run=dry_run,
            diff=diff,
            rotate_tokens=rotate_tokens,
            overwrite=overwrite,
            force_bootstrap=force_bootstrap,
            reset_session=reset_session,
            wake=not no_wake,
        )

    ask(make, request=request, no_wait=no_wait, as_json=as_json)


def delete(
    agent: Annotated[str, typer.Argument(help="Name or id of an agent; the whole id if its row is gone.")],
    gateway: Annotated[
        str | None, typer.Option(help="Where it is, for an agent whose row is gone already.")
    ] = None,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave its workspace on disk.")] = False,
    keep_session: Annotated[bool, typer.Option("--keep-session", help="Leave its session.")] = False,
    keep_row: Annotated[bool, typer.Option("--keep-row", help="Leave its row in the database.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Take an agent off its gateway and out of the database. What is gone already is no failure."""
    with engine().connect() as connection:
        agent_id = _agent(connection, agent)
        gateway_id = find(connection, "gateway", gateway) if gateway else None
        question = _question(connection, agent_id, files=not keep_files, row=not keep_row)
    if not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        note("Nothing was done.")
        raise typer.Exit(FAILED)

    def make(_: Connection) -> DeleteAgent:
        return DeleteAgent(
            agent_id=agent_id,
            gateway_id=gateway_id,
            request_id=request,
            requested_by=REQUESTED_BY,
            delete_files=not keep_files,
            delete_session=not keep_session,
            delete_row=not keep_row,
        )

    ask(make, request=request, no_wait=no_wait, as_json=as_json)


def _agent(connection: Connection, given: str) -> UUID:
    """The agent meant; a whole UUID is taken as it is, for the agent may be left on a gateway alone."""
    try:
        return find(connection, "agent", given)
    except WrongUseError:
        try:
            return UUID(given)
        except ValueError:
            pass
        raise


_WHO = text("""
    SELECT a.name, g.name AS gateway FROM agents a LEFT JOIN gateways g ON g.id = a.gateway_id
    WHERE a.id = :agent_id
""")


def _question(connection: Connection, agent_id: UUID, *, files: bool, row: bool) -> str:
    """What is about to go, by name."""
    found = connection.execute(_WHO, {"agent_id": agent_id}).one_or_none()
    who = f"agent {found.name!r} from gateway {found.gateway!r}" if found else f"agent {agent_id}"
    goes = [name for name, wanted in (("its workspace", files), ("its row", row)) if wanted]
    with_it = f", with {' and '.join(goes)}" if goes else ""
    return plain(f"Delete {who}{with_it}?")


def main_agent(
    gateway: Annotated[str, typer.Argument(help="Name or id of a gateway.")],
    rotate_tokens: Annotated[
        bool, typer.Option("--rotate-tokens", help="Give the agent a new token.")
    ] = False,
    no_wake: Annotated[bool, typer.Option("--no-wake", help="Do not wake the agent at the end.")] = False,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Make or repair the main agent of a gateway and bring it to life. Exit code 1 where that fails."""

    def make(connection: Connection) -> ProvisionGatewayMain:
        return ProvisionGatewayMain(
            gateway_id=find(connection, "gateway", gateway),
            request_id=request,
            requested_by=REQUESTED_BY,
            rotate_tokens=rotate_tokens,
            wake=not no_wake,
        )

    ask(make, request=request, no_wait=no_wait, as_json=as_json)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    board: Annotated[str, typer.Option(help="Name or id of its board; its gateway is the board's.")],
    lead: Annotated[bool, typer.Option("--lead", help="It leads the board; a board has one lead.")] = False,
    role: Annotated[str | None, typer.Option(help="What it does, as in 'Researcher'.")] = None,
    as_json: Json = False,
) -> None:
    """Add an agent (to a database of our own, made by `migrate --standalone`)."""
    profile = {"role": role.strip()} if role and role.strip() else None
    with engine().begin() as connection:
        key = add_agent(connection, NewAgent(name, find(connection, "board", board), lead, profile))
    if as_json:
        emit({"id": key, "name": name})
    else:
        say(f"Agent {name} added: {key}", "Bring it to life with:", f"  provisioner provision {key}")


@app.command("list")
def list_agents(
    board: Annotated[str | None, typer.Option(help="Only those of this board.")] = None,
    gateway: Annotated[str | None, typer.Option(help="Only those of this gateway.")] = None,
    as_json: Json = False,
) -> None:
    """List the agents, with the newest job of each."""
    with engine().connect() as connection:
        lines = inventory.agents(
            connection,
            board_id=find(connection, "board", board) if board else None,
            gateway_id=find(connection, "gateway", gateway) if gateway else None,
        )
    if as_json:
        emit([asdict(line) for line in lines])
        return
    if not lines:
        say("No agent here: provisioner agent add NAME --board BOARD")
        return
    shown = table("Agent", "Board", "Status", "Newest job", "Id", last="Gateway")
    for line in lines:
        shown.add_row(
            plain(line.name) + (" (lead)" if line.is_board_lead else ""),
            plain(line.board or "none (main)"),
            line.status,
            f"{line.last_job_status} {ago(line.last_job_age_s)}" if line.last_job_status else "none",
            short(line.id),
            plain(line.gateway or "none"),
        )
    say(shown)
