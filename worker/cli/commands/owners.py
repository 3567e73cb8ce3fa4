"""``provisioner owners set|unset|show``."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from worker.cli.console import Json, emit, note, plain, say, short, show_list, table
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError
from worker.cli.targets import Board, Gateway, apply_command, find_target
from worker.records.file_records import all_owners, set_owner, unset_owner
from worker.workspace.three_sides import OWNERS, Owner

app = typer.Typer(
    help="Whose each workspace file is: ours, the agent's, or merged from what both changed.",
    no_args_is_help=True,
)

File = Annotated[str, typer.Argument(metavar="FILE", help="A file in agents' workspaces, such as SOUL.md.")]


@app.command("set")
def set_command(
    file: File,
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="ours, agent or merged.")],
    gateway: Gateway = None,
    board: Board = None,
    as_json: Json = False,
) -> None:
    """Say whose a file is, for the agents of a gateway or of a board; a board's setting wins.

    ours: rewritten whenever it differs. agent: delivered once, and kept as soon as somebody fills it in.
    merged: what the agent changed and what the templates changed are put together line by line, and kept as a
    conflict where they touch. The section Tools, which holds the credentials, is always ours.
    """
    if owner not in get_args(Owner):
        raise WrongUseError(f"OWNER is one of ours, agent and merged, not {owner!r}.")
    chosen: Owner = owner  # type: ignore[assignment]
    with engine().begin() as connection:
        target = find_target(connection, gateway, board, None)
        set_owner(connection, target.scope, target.id, _checked(file), chosen)
        apply = apply_command(connection, target)
    if as_json:
        emit({**target.document(), "name": file, "owner": owner})
        return
    say(f"Owner of {file} for {target.named}: {owner}.", f"Apply it: {apply}")


@app.command("unset")
def unset(file: File, gateway: Gateway = None, board: Board = None, as_json: Json = False) -> None:
    """Take an owner back: what was set for the gateway, or the default, applies again."""
    with engine().begin() as connection:
        target = find_target(connection, gateway, board, None, gone=True)
        found = unset_owner(connection, target.scope, target.id, file)
        apply = apply_command(connection, target)
    if not found:
        raise WrongUseError(
            f"There is no owner of {file!r} for {target.named}: `provisioner owners show` lists them."
        )
    if as_json:
        emit({**target.document(), "unset": file})
        return
    say(f"Owner of {file} for {target.named}: no longer set.", f"Apply it: {apply}")


@app.command("show")
def show(as_json: Json = False) -> None:
    """Show the owners that were set, and the defaults."""
    with engine().connect() as connection:
        found = all_owners(connection)
    shown = table("For", "File", last="Owner")
    for row in found:
        whose = plain(row.target) if row.target is not None else f"{short(row.target_id)} (gone)"
        shown.add_row(f"{row.scope} {whose}", plain(row.name), row.owner)
    nothing = "No owner set yet: provisioner owners set SOUL.md ours --board BOARD"
    show_list([dict(row._mapping) for row in found], shown, nothing=nothing, as_json=as_json)
    if not as_json:
        names = ", ".join(f"{name} {owner}" for name, owner in OWNERS.items())
        note(f"By default: {names}; all others merged.")


def _checked(file: str) -> str:
    if not file or "/" in file or "\x00" in file or len(file) > 100:
        raise WrongUseError(f"FILE is the name of a file without a folder, not {file!r}.")
    return file
