"""``provisioner agent add|list``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from worker.cli import inventory
from worker.cli.console import Json, ago, emit, plain, say, short, table
from worker.cli.environment import engine
from worker.cli.lookup import find
from worker.standalone import NewAgent, add_agent

app = typer.Typer(help="Agents: those there are, and new ones.", no_args_is_help=True)


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
