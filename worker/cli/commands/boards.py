"""``provisioner board add|list``, and ``provisioner lead``: the agent that leads a board."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import text

from worker.cli.console import Json, emit, plain, say, short, show_list, table
from worker.cli.environment import engine
from worker.cli.lookup import find
from worker.cli.options import Make, from_request
from worker.cli.submit import NoWait, ask, follow
from worker.jobs.requests import EnsureBoardLead
from worker.standalone import add_board

app = typer.Typer(help="List boards, and add new ones.", no_args_is_help=True)

_BOARDS = text("""
    SELECT b.id, b.name, g.name AS gateway, b.gateway_id, b.objective,
        (SELECT a.name FROM agents a WHERE a.board_id = b.id AND a.is_board_lead
         ORDER BY a.created_at LIMIT 1) AS lead,
        (SELECT count(*) FROM agents a WHERE a.board_id = b.id) AS agents
    FROM boards b LEFT JOIN gateways g ON g.id = b.gateway_id
    ORDER BY g.created_at, b.created_at
""")


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
        boards = [dict(row) for row in connection.execute(_BOARDS).mappings()]
    shown = table("Board", "Gateway", "Lead", "Agents", "Id", last="Objective")
    for board in boards:
        shown.add_row(
            plain(board["name"]),
            plain(board["gateway"] or "none"),
            plain(board["lead"] or "none"),
            str(board["agents"]),
            short(board["id"]),
            plain(board["objective"] or ""),
        )
    nothing = "No board yet: provisioner board add NAME --gateway GATEWAY"
    show_list(boards, shown, nothing=nothing, as_json=as_json)


@from_request(EnsureBoardLead)
def lead(*, make: Make[EnsureBoardLead], no_wait: NoWait = False, as_json: Json = False) -> None:
    """Create or repair the lead of a board and provision it. Exits 1 if that fails.

    A board has one lead. --json prints the request's job, whose result names the provisioning job.
    """
    job = ask(make, no_wait=no_wait, as_json=as_json)
    provision = (job.result or {}).get("provision_job_id")
    if provision and not no_wait:
        follow(UUID(str(provision)), as_json=as_json, quiet=as_json)
