"""``provisioner gateway allow-rewrite``: shows what a config write would rewrite, and allows it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from worker.cli.console import Json, emit, note, plain, say
from worker.cli.doctor.fleet import GatewayRow, read_gateway
from worker.cli.environment import engine, operator_settings
from worker.cli.errors import FAILED
from worker.cli.lookup import find
from worker.gateway.address import GatewayAddress
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey
from worker.gateway.dialect import Dialect
from worker.gateway.rewrites import WORDS, removal_rewrites
from worker.gateway.roster_reading import LiveRoster, read_roster
from worker.provisioning.rewrite_permission import Standing, allow, revoke, standing_of
from worker.settings import Settings

_CONNECT_S, _CALL_S = 15.0, 15.0


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
        standing = standing_of(connection, row.id, live, row.token, removal_rewrites(live, live.ours))
    if not as_json:
        _show(row, standing)
    question = f"Allow config writes to {plain(row.name)} to do that?"
    new = standing.refused
    if new and not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        note("Nothing was allowed.")
        raise typer.Exit(FAILED)
    if new:
        with engine().begin() as connection:
            allow(connection, row.id, standing.rewrites)
    if as_json:
        emit(_document(row, standing))
    elif new:
        say(f"Allowed for {plain(row.name)}. `--revoke` takes it back.")


def _read(row: GatewayRow, settings: Settings) -> LiveRoster:
    address = GatewayAddress(row.url, row.token, row.allow_insecure_tls)
    device = DeviceKey.load_or_create(settings.gateway_device_key)
    with GatewayConnection.open(address, device, deadline_s=_CONNECT_S) as connection:
        hello = connection.hello
        return read_roster(
            Dialect.from_hello(hello.server_version, hello.methods),
            lambda: connection.call("config.get", deadline_s=_CALL_S),
            lambda: connection.call("agents.list", deadline_s=_CALL_S),
        )


def _show(row: GatewayRow, standing: Standing) -> None:
    lost = [one for one in standing.rewrites if not one.kept]
    if not lost:
        say(f"A config write to {plain(row.name)} rewrites nothing that its owner wrote.")
    else:
        say(f"At any config write, the OpenClaw release of {plain(row.name)}:")
    for kind, words in WORDS.items():
        those = [one for one in lost if one.kind == kind]
        if those:
            say(f"  {words.partition(' ({})')[0]}:")
        for one in those:
            say(f"    {plain(one.shown)}{' (allowed already)' if one.key in standing.allowed else ''}")
    if standing.comments:
        say("  drops the comments in openclaw.json; this needs no permission.")


def _revoked(gateway: str, count: int) -> str:
    if not count:
        return f"Nothing was allowed for {gateway}."
    return f"Revoked {count} permission{'s' * (count > 1)}: config writes to {gateway} are refused again."


def _document(row: GatewayRow, standing: Standing) -> dict[str, Any]:
    return {
        "gateway_id": row.id,
        "gateway": row.name,
        "rewrites": [
            {**asdict(one), "allowed_before": one.key in standing.allowed} for one in standing.rewrites
        ],
        "comments": standing.comments,
        "allowed": [one.key for one in standing.refused],
    }
