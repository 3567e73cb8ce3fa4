"""``provisioner board add|list``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from worker.cli import inventory
from worker.cli.console import Json, emit, plain, say, short, table
from worker.cli.environment import engine
from worker.cli.lookup import find
from worker.standalone import add_board

app = typer.Typer(help="Boards: those there are, and new ones.", no_args_is_help=True)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    gateway: Annotated[str, typer.Option(help="Name or id of the gateway that its agents live on.")],
    objective: Annotated[str | None, typer.Option(help="The goal that its agents work towards.")] = None,
    as_json: Json = False,
) -> None:
    """Add a board (to a database of our own, made by `migrate --standalone`)."""
    with engine().begin() as connection:
        key = add_board(connection, name, find(connection, "gateway", gateway), objective)
    if as_json:
        emit({"id": key, "name": name})
    else:
        say(f"Board {name} added: {key}")


@app.command("list")
def list_boards(as_json: Json = False) -> None:
    """List the boards with their lead."""
    with engine().connect() as connection:
        lines = inventory.boards(connection)
    if as_json:
        emit([asdict(line) for line in lines])
        return
    if not lines:
        say("No board yet: provisioner board add NAME --gateway GATEWAY")
        return
    shown = table("Board", "Gateway", "Lead", "Agents", "Id", last="Objective")
    for line in lines:
        shown.add_row(
            plain(line.name),
            plain(line.gateway or "none"),
            plain(line.lead or "none"),
            str(line.agents),
            short(line.id),
            plain(line.objective or ""),
        )
    say(shown)
