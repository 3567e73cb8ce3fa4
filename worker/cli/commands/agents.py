"""``provisioner delete``, which asks before it does, and ``provisioner agent add|list``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from sqlalchemy import Connection, text

from worker.cli.commands.bundles import export, import_
from worker.cli.console import Json, ago, emit, note, plain, say, short, show_list, table
from worker.cli.environment import engine
from worker.cli.errors import FAILED
from worker.cli.lookup import find
from worker.cli.options import Make, from_request
from worker.cli.submit import NoWait, ask
from worker.jobs.requests import DeleteAgent
from worker.records.bundles import KEPT_FOR
from worker.standalone import NewAgent, add_agent
from worker.workspace.display_text import shown_name

app = typer.Typer(help="List agents, add new ones, and carry them elsewhere in a file.", no_args_is_help=True)
app.command("export")(export)
app.command("import")(import_)


@from_request(DeleteAgent)
def delete(
    *,
    make: Make[DeleteAgent],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Take an agent off its gateway and out of the database. Succeeds if it is gone already."""
    with engine().connect() as connection:
        request = make(connection)
        question = _question(connection, request)
        kept = _kept(connection, request)
    note(kept)
    if not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        note("Nothing was done.")
        raise typer.Exit(FAILED)
    ask(make, no_wait=no_wait, as_json=as_json)


_WHO = text("""
    SELECT a.name, g.name AS gateway, EXISTS (
        SELECT FROM provisioner.agent_places p
        WHERE p.agent_id = a.id AND p.gateway_id = a.gateway_id AND p.adopted AND p.until IS NULL
    ) AS adopted
    FROM agents a LEFT JOIN gateways g ON g.id = a.gateway_id
    WHERE a.id = :agent_id
""")


def _question(connection: Connection, request: DeleteAgent) -> str:
    """The question before a delete: names the agent and what goes with it."""
    found = connection.execute(_WHO, {"agent_id": request.agent_id}).one_or_none()
    who = f"agent {found.name!r} from gateway {found.gateway!r}" if found else f"agent {request.agent_id}"
    files = request.delete_files
    if files is None:
        files = found is None or not found.adopted
    going = (("its workspace", files), ("its row", request.delete_row))
    goes = [name for name, wanted in going if wanted]
    with_it = f", with {' and '.join(goes)}" if goes else ""
    return plain(f"Delete {who}{with_it}?")


_FAMILY = text("""
    SELECT CASE WHEN bool_or(name = 'TOOLS.md') THEN 'list' WHEN count(*) > 0 THEN 'entries' END
    FROM provisioner.agent_files WHERE agent_id = :agent_id AND kind = 'file'
""")


def _kept(connection: Connection, request: DeleteAgent) -> str:
    """What is kept of the agent, as far as its gateway's release lets one read it."""
    if request.without_bundle:
        return "No bundle of it is kept: it cannot be restored."
    family = connection.execute(_FAMILY, {"agent_id": request.agent_id}).scalar_one_or_none()
    what = {
        "list": "its row, and the eight files that its gateway shows, but nothing else in its workspace",
        "entries": "its row, and the text files in its workspace, but not its sessions",
    }.get(family or "", "its row, and the files that its gateway shows")
    return (
        f"A bundle of it is kept for {KEPT_FOR.days} days: {what}."
        " `provisioner restore` makes it anew from that."
    )


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
        say(f"Agent {name} added: {key}", "Provision it with:", f"  provisioner provision {key}")


@app.command("list")
def list_agents(
    board: Annotated[str | None, typer.Option(help="Only those of this board.")] = None,
    gateway: Annotated[str | None, typer.Option(help="Only those of this gateway.")] = None,
    as_json: Json = False,
) -> None:
    """List the agents, with the newest job of each."""
    with engine().connect() as connection:
        only = {
            "board_id": find(connection, "board", board) if board else None,
            "gateway_id": find(connection, "gateway", gateway) if gateway else None,
        }
        rows = connection.execute(_AGENTS, only).mappings()
        agents = [{**row, "name": shown_name(row["name"], str(row["id"]))} for row in rows]
    shown = table("Agent", "Board", "Gateway", "Status", "Id", last="Newest job", folds=True)
    for agent in agents:
        status, age_s = agent["last_job_status"], agent["last_job_age_s"]
        shown.add_row(
            plain(agent["name"]) + (" (lead)" if agent["is_board_lead"] else ""),
            plain(agent["board"] or "none (main)"),
            plain(agent["gateway"] or "none"),
            agent["status"],
            short(agent["id"]),
            f"{status} {ago(age_s)}" if status else "none",
        )
    nothing = "No agent here: provisioner agent add NAME --board BOARD"
    show_list(agents, shown, nothing=nothing, as_json=as_json)


_AGENTS = text("""
    SELECT a.id, a.name, a.is_board_lead, a.status, b.name AS board, a.board_id, g.name AS gateway,
        a.gateway_id, j.id AS last_job_id, j.status AS last_job_status,
        extract(epoch FROM now() - j.created_at)::float AS last_job_age_s
    FROM agents a
    LEFT JOIN boards b ON b.id = a.board_id
    LEFT JOIN gateways g ON g.id = a.gateway_id
    LEFT JOIN LATERAL (
        SELECT id, status, created_at FROM provisioner.jobs
        WHERE jobs.agent_id = a.id
           OR a.board_id IS NULL AND jobs.kind = 'provision_gateway_main' AND jobs.gateway_id = a.gateway_id
        ORDER BY created_at DESC LIMIT 1
    ) j ON true
    WHERE (CAST(:board_id AS uuid) IS NULL OR a.board_id = :board_id)
      AND (CAST(:gateway_id AS uuid) IS NULL OR a.gateway_id = :gateway_id)
    ORDER BY b.created_at, a.is_board_lead DESC, a.created_at
""")
