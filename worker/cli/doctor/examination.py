"""What is right and wrong with one gateway, as far as a connection to it tells."""

from __future__ import annotations

import time
from collections.abc import Callable

from worker.cli.console import counted
from worker.cli.doctor.fleet import Fleet, GatewayRow
from worker.cli.doctor.owner import check_heartbeats, check_rewrites, check_settings, check_variables
from worker.cli.doctor.report import Checkup, Finding
from worker.cli.doctor.roster import check_automations, check_roster
from worker.cli.doctor.servers import check_base_url
from worker.cli.doctor.workspaces import check_file_support, check_renderings
from worker.cli.inventory import shown_url
from worker.errors import ProvisionerError
from worker.gateway.address import GatewayAddress
from worker.gateway.answers import Answer
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey, DeviceKeyError
from worker.gateway.dialect import Dialect
from worker.gateway.errors import PermanentGatewayError
from worker.gateway.protocol import MAX_PROTOCOL, MIN_PROTOCOL, Hello
from worker.gateway.roster_reading import LiveRoster, RosterUnknownError, read_roster
from worker.provisioning.rewrite_permission import Standing
from worker.settings import Settings

CONNECT_S = 15.0
CALL_S = 15.0
_LIST = "device.pair.list"

StandingOf = Callable[[LiveRoster], Standing]
"""What a write to that roster would rewrite, and what of it is allowed."""


def examine(
    row: GatewayRow, fleet: Fleet, settings: Settings, standing_of: StandingOf | None = None
) -> Checkup:
    """Connect once, look, and hang up. Whatever the gateway, its rows or our key do wrong is a finding."""
    found = Checkup(row.id, row.name, shown_url(row.url))
    found.extend(check_base_url(settings.base_url, row.url))
    try:
        _look(row, fleet, settings, found, standing_of)
    except ProvisionerError as error:
        check = "device" if isinstance(error, DeviceKeyError) else "config" if found.version else "connect"
        found.note(check, str(error), "fault")
    return found


def _look(
    row: GatewayRow, fleet: Fleet, settings: Settings, found: Checkup, standing_of: StandingOf | None
) -> None:
    device_key = settings.gateway_device_key
    address = GatewayAddress(row.url, row.token, row.allow_insecure_tls)
    made_now = not device_key.exists()
    device = DeviceKey.load_or_create(device_key)
    found.device_id = device.device_id
    found.note("device", device.device_id)
    if made_now:
        found.note(
            "device", f"its key was made just now, in {device_key}: give the workers the same file", "warning"
        )
    began = time.monotonic()
    with GatewayConnection.open(address, device, deadline_s=CONNECT_S) as connection:
        found.note("connect", f"let us in after {(time.monotonic() - began) * 1000:.0f} ms")
        _read_hello(connection.hello, found)
        found.paired = paired(connection, device.device_id)
        found.extend([pairing_finding(found.paired)])
        dialect, live = _read_dialect(connection, found)
        automations = (
            list(check_automations(connection, live, fleet.records, CALL_S)) if live is not None else []
        )
    if live is not None:
        found.agents = len(live.present)
        found.note("config", f"valid, {counted(found.agents, 'agent')} in the roster")
        found.extend(check_roster(dialect, live.document, fleet, row.name))
        found.extend(check_heartbeats(dialect, live.document))
        found.extend(automations)
        found.extend(check_settings(dialect, live.answer.get("config")))
        found.extend(check_variables(dialect, live.answer))
        if standing_of is not None:
            standing = standing_of(live)
            found.writes_refused = bool(standing.refused)
            found.extend(check_rewrites(live, standing, row.name))
    found.extend(check_file_support(dialect))
    found.extend(check_renderings(dialect, fleet.records, settings.base_url, settings.templates_dir))


def _read_hello(hello: Hello, found: Checkup) -> None:
    found.version, found.protocol = hello.server_version, hello.protocol
    unnamed = " (the oldest releases do not say which they are)" if hello.server_version == "dev" else ""
    found.note("version", f"OpenClaw {hello.server_version}{unnamed}")
    found.note("protocol", f"{hello.protocol}; we speak {MIN_PROTOCOL} to {MAX_PROTOCOL}")
    if hello.scopes is None:
        found.note("scopes", "this release does not name those it granted")
    else:
        found.scopes = sorted(hello.scopes)
        found.note("scopes", ", ".join(found.scopes))


def _read_dialect(connection: GatewayConnection, found: Checkup) -> tuple[Dialect, LiveRoster | None]:
    """The gateway's dialect, and its roster; None where that cannot be known, which is a fault."""
    hello = connection.hello
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    unknown = None
    try:
        live = read_roster(
            dialect,
            lambda: connection.call("config.get", deadline_s=CALL_S),
            lambda: connection.call("agents.list", deadline_s=CALL_S),
        )
    except RosterUnknownError as error:
        live, unknown = None, str(error)
    found.dialect = dialect.family
    heartbeat = "the heartbeat scratch" if dialect.heartbeat_in == "scratch" else dialect.heartbeat_in
    found.note(
        "dialect", f"{dialect.family}; token in {dialect.credentials_in}, heartbeat text in {heartbeat}"
    )
    if unknown is not None:
        found.note("config", unknown, "fault")
    return dialect, live


def compare_with_workers(found: Checkup, row: GatewayRow, *, refusal_forgotten: bool) -> None:
    """Add what the workers think of the gateway, where that is not what we saw."""
    if refusal_forgotten:
        found.note(
            "workers", "had noted this token as refused; they will use it again from now on", "warning"
        )
    elif row.refused_token_fingerprint and not found.ok:
        found.note("workers", "do not try a refused token again until it, or the URL, is changed", "warning")
    if row.down_for_s is not None:
        how = "they will see by themselves that it is up" if found.ok else "they go on trying"
        found.note("workers", f"have found it down for {row.down_for_s:.0f} s: {how}", "warning")
    if row.rate_limited_for_s is not None and row.rate_limited_for_s > 0:
        found.note(
            "workers", f"wait {row.rate_limited_for_s:.0f} s for its limit on config writes", "warning"
        )


def paired(connection: GatewayConnection, device_id: str) -> bool | None:
    """Whether the gateway has the device on its list; None where it does not say. It has let us in either
    way: the newest release admits a backend on its own machine without pairing. Raises TransientError."""
    if _LIST not in connection.hello.methods:
        return None
    try:
        payload = connection.call(_LIST, deadline_s=CALL_S)
        devices = Answer(payload, f"the gateway at {connection.address.url}", _LIST).records("paired")
    except PermanentGatewayError:
        return None
    return any(device.value.get("deviceId") == device_id for device in devices)


def pairing_finding(is_paired: bool | None) -> Finding:
    """What that means."""
    if is_paired is None:
        return Finding("pairing", "ok", "let in; this gateway does not say whether our device is paired")
    if is_paired:
        return Finding("pairing", "ok", "our device is paired")
    says = (
        "let in without being paired, as this gateway does from its own machine; from another one it will"
        " want the device approved: `openclaw devices approve` there"
    )
    return Finding("pairing", "ok", says)
