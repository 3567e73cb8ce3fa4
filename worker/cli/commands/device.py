"""``provisioner device show``: the workers' device key, and which gateways recognize it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from sqlalchemy import text

from worker.cli.console import Json, emit, lines, plain, say
from worker.cli.doctor.examination import paired, pairing_finding
from worker.cli.doctor.fleet import GatewayRow, read_gateway
from worker.cli.environment import engine, operator_settings
from worker.cli.errors import WrongUseError
from worker.errors import ProvisionerError
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey
from worker.masking import mask_all
from worker.roster.circuit_breaker import fingerprint

CONNECT_S = 5.0
_AT_ONCE = 8

app = typer.Typer(help="Show the device key by which gateways recognize the workers.", no_args_is_help=True)


@dataclass(frozen=True)
class Known:
    """What one gateway knows of our device. ``paired``: None if it does not say, or refused the
    connection."""

    gateway: str
    let_in: bool
    paired: bool | None
    says: str


@app.callback()
def device() -> None:
    """Show the device key by which gateways recognize the workers."""


@app.command("show")
def show(
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the gateways.")] = False,
    as_json: Json = False,
) -> None:
    """Show the device's id and public key, and which gateways know it. Never the private key."""
    path = operator_settings().gateway_device_key
    if not path.exists():
        raise WrongUseError(
            f"There is no device key in {path} yet: the first worker or doctor makes it there, unless"
            " GATEWAY_DEVICE_KEY names another file."
        )
    key = DeviceKey.load_or_create(path)
    known = [] if offline else _ask_all(key)
    if as_json:
        document = {"device_id": key.device_id, "public_key": key.public_key, "file": str(path)}
        gateways = None if offline else mask_all([asdict(one) for one in known])
        emit({**document, "gateways": gateways}, public=True)  # a public key has the form of a token
        return
    shown = lines()
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in (("device", key.device_id), ("public key", key.public_key), ("file", str(path))):
        shown.add_row(name, value)
    say(shown)
    if known:
        say(Padding(_table(known), (1, 0, 0, 0)))


def _table(known: Sequence[Known]) -> Table:
    shown = lines()
    shown.add_column(no_wrap=True, overflow="ellipsis", max_width=26)
    shown.add_column(overflow="fold")
    for one in known:
        shown.add_row(plain(one.gateway), Text(plain(one.says), style="" if one.let_in else "yellow"))
    return shown


def _ask_all(key: DeviceKey) -> list[Known]:
    with engine().connect() as connection:
        ids = connection.execute(text("SELECT id FROM gateways ORDER BY created_at, id")).scalars().all()
        rows = [read_gateway(connection, gateway_id) for gateway_id in ids]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda row: _ask(row, key), rows))


def _ask(row: GatewayRow, key: DeviceKey) -> Known:
    """Connect and check. A token refused before is not tried: ten refusals lock us out (gateways.md 4)."""
    try:
        if row.refused_token_fingerprint == fingerprint(row.address):
            return Known(
                row.name, False, None, "not asked: it refused this token before; `provisioner doctor`"
            )
        with GatewayConnection.open(row.address, key, deadline_s=CONNECT_S) as connection:
            is_paired = paired(connection, key.device_id)
    except ProvisionerError as error:
        return Known(row.name, False, None, str(error))
    return Known(row.name, True, is_paired, pairing_finding(is_paired).says)
