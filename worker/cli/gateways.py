"""``provisioner gateway add|list|allow-rewrite``."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from worker.cli import inventory
from worker.cli.allow_rewrite import allow_rewrite
from worker.cli.console import Json, emit, note, plain, say, short, table
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError
from worker.standalone import add_gateway

TOKEN_VARIABLE = "OPENCLAW_GATEWAY_TOKEN"

app = typer.Typer(help="OpenClaw gateways: those there are, and new ones.", no_args_is_help=True)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Option(help="ws:// or wss:// address, as in ws://host:18789.")],
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help=f"File with the gateway's token (gateway.auth.token); - is stdin. Without it:"
            f" ${TOKEN_VARIABLE}, else asked for.",
        ),
    ] = None,
    workspace_root: Annotated[
        str, typer.Option(help="Folder on the gateway's machine for the workspaces.")
    ] = "~/.openclaw",
    as_json: Json = False,
) -> None:
    """Add a gateway (to a database of our own, made by `migrate --standalone`)."""
    token = _token(token_file)
    with engine().begin() as connection:
        key = add_gateway(connection, name, url, token, workspace_root)
    if token is None:
        note("It has no token: the gateway must accept connections without one.")
    if as_json:
        emit({"id": key, "name": name})
    else:
        say(f"Gateway {name} added: {key}", "Check it with:", f"  provisioner doctor {key}")


@app.command("list")
def list_gateways(as_json: Json = False) -> None:
    """List the gateways, and what the workers know of each."""
    with engine().connect() as connection:
        lines = inventory.gateways(connection)
    if as_json:
        emit([asdict(line) for line in lines])
        return
    if not lines:
        say("No gateway yet: provisioner gateway add NAME --url ws://host:18789")
        return
    shown = table("Gateway", "State", "Boards", "Agents", "Id", last="URL")
    for line in lines:
        shown.add_row(
            plain(line.name), line.state, str(line.boards), str(line.agents), short(line.id), line.url
        )
    say(shown)


app.command("allow-rewrite")(allow_rewrite)


def _token(file: str | None) -> str | None:
    if file == "-":
        return _clean(sys.stdin.read())
    if file is not None:
        try:
            return _clean(Path(file).expanduser().read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise WrongUseError(f"The token file {file} cannot be read: {why}.") from None
    if TOKEN_VARIABLE in os.environ:
        return _clean(os.environ[TOKEN_VARIABLE])
    if sys.stdin.isatty():
        asked: str = typer.prompt(
            "Gateway token (not shown)", hide_input=True, default="", show_default=False
        )
        return _clean(asked)
    return None


def _clean(token: str) -> str | None:
    token = token.strip()
    if any(character.isspace() or not character.isprintable() for character in token):
        raise WrongUseError("The token holds blanks or unprintable characters: give the token alone.")
    return token or None
