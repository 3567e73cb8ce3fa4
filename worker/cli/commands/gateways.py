"""``provisioner gateway add|list|allow-rewrite``."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import text

from worker.cli.console import Json, emit, note, plain, say, short, show_list, table
from worker.cli.doctor.examination import CONNECT_S, live_roster
from worker.cli.doctor.fleet import GatewayRow, read_gateway, shown_url
from worker.cli.environment import engine, operator_settings
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.lookup import find
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey
from worker.gateway.rewrites import KIND_DESCRIPTIONS, removal_rewrites
from worker.gateway.roster_reading import LiveRoster
from worker.roster.rewrite_permission import RewriteReview, allow, review_rewrites, revoke
from worker.settings import Settings
from worker.standalone import add_gateway

TOKEN_VARIABLE = "OPENCLAW_GATEWAY_TOKEN"

app = typer.Typer(help="List OpenClaw gateways, and add new ones.", no_args_is_help=True)

_GATEWAYS = text("""
    SELECT g.id, g.name, g.url, coalesce(g.token, '') <> '' AS has_token, g.workspace_root,
        (SELECT count(*) FROM boards b WHERE b.gateway_id = g.id) AS boards,
        (SELECT count(*) FROM agents a WHERE a.gateway_id = g.id) AS agents,
        CASE WHEN s.down_since IS NOT NULL THEN 'down'
             WHEN s.rate_limited_until > now() THEN 'rate limited'
             WHEN s.refused_token_fingerprint IS NOT NULL THEN 'token refused'
             WHEN s.gateway_id IS NOT NULL THEN 'up' ELSE 'not tried' END AS state,
        s.last_error
    FROM gateways g LEFT JOIN provisioner.gateway_states s ON s.gateway_id = g.id
    ORDER BY g.created_at
""")


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
        rows = connection.execute(_GATEWAYS).mappings()
        gateways = [{**row, "url": shown_url(row["url"] or "")} for row in rows]
    shown = table("Gateway", "State", "Boards", "Agents", "Id", last="URL")
    for gateway in gateways:
        counts = (str(gateway["boards"]), str(gateway["agents"]))
        shown.add_row(plain(gateway["name"]), gateway["state"], *counts, short(gateway["id"]), gateway["url"])
    nothing = "No gateway yet: provisioner gateway add NAME --url ws://host:18789"
    show_list(gateways, shown, nothing=nothing, as_json=as_json)


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


@app.command("allow-rewrite")
def allow_rewrite(
    gateway: Annotated[str, typer.Argument(help="Name or id of a gateway.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    take_back: Annotated[
        bool, typer.Option("--revoke", help="Revoke everything that was allowed for this gateway.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a config write would rewrite in the gateway owner's files, and allow it for this gateway.

    Allows what is shown and nothing else: anything new is refused again. Writes nothing on the gateway. Asks
    first on a terminal, unless --yes is given.
    """
    with engine().connect() as connection:
        row = read_gateway(connection, find(connection, "gateway", gateway))
    if take_back:
        with engine().begin() as connection:
            taken = revoke(connection, row.id)
        if as_json:
            emit({"gateway_id": row.id, "gateway": row.name, "revoked": taken})
        else:
            say(_revoked(plain(row.name), taken))
        return
    live = _read(row, operator_settings())
    with engine().connect() as connection:
        review = review_rewrites(connection, row.id, live, row.token, removal_rewrites(live, live.ours))
    if not as_json:
        _show(row, review)
    question = f"Allow config writes to {plain(row.name)} to do that?"
    new = review.refused
    if new and not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        note("Nothing was allowed.")
        raise typer.Exit(FAILED)
    if new:
        with engine().begin() as connection:
            allow(connection, row.id, review.rewrites)
    if as_json:
        emit(_document(row, review))
    elif new:
        say(f"Allowed for {plain(row.name)}. `--revoke` takes it back.")


def _read(row: GatewayRow, settings: Settings) -> LiveRoster:
    device = DeviceKey.load_or_create(settings.gateway_device_key)
    with GatewayConnection.open(row.address, device, deadline_s=CONNECT_S) as connection:
        return live_roster(connection)


def _show(row: GatewayRow, review: RewriteReview) -> None:
    lost = [one for one in review.rewrites if not one.kept]
    if not lost:
        say(f"A config write to {plain(row.name)} rewrites nothing that its owner wrote.")
    else:
        say(f"At any config write, the OpenClaw release of {plain(row.name)}:")
    for kind, words in KIND_DESCRIPTIONS.items():
        those = [one for one in lost if one.kind == kind]
        if those:
            say(f"  {words.partition(' ({})')[0]}:")
        for one in those:
            say(f"    {plain(one.shown)}{' (allowed already)' if one.key in review.allowed else ''}")
    if review.comments:
        say("  drops the comments in openclaw.json; this needs no permission.")


def _revoked(gateway: str, count: int) -> str:
    if not count:
        return f"Nothing was allowed for {gateway}."
    return f"Revoked {count} permission{'s' * (count > 1)}: config writes to {gateway} are refused again."


def _document(row: GatewayRow, review: RewriteReview) -> dict[str, Any]:
    return {
        "gateway_id": row.id,
        "gateway": row.name,
        "rewrites": [{**asdict(one), "allowed_before": one.key in review.allowed} for one in review.rewrites],
        "comments": review.comments,
        "allowed": [one.key for one in review.refused],
    }
