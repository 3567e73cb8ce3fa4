"""Checks one gateway over a connection of its own, and writes the report."""

from __future__ import annotations

import time
from collections.abc import Callable

from worker.cli.console import counted
from worker.cli.doctor.fleet import Fleet, GatewayRow, shown_url
from worker.cli.doctor.owner import check_heartbeats, check_rewrites, check_settings, check_variables
from worker.cli.doctor.report import Finding, Report
from worker.cli.doctor.roster import check_automations, check_roster
from worker.cli.doctor.servers import check_base_url
from worker.cli.doctor.workspaces import check_file_support, check_renderings
from worker.errors import ProvisionerError
from worker.gateway.answers import Answer
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey, DeviceKeyError
from worker.gateway.dialect import Dialect
from worker.gateway.errors import PermanentGatewayError
from worker.gateway.protocol import MAX_PROTOCOL, MIN_PROTOCOL, Hello
from worker.gateway.roster_reading import LiveRoster, RosterUnknownError, read_roster
from worker.roster.rewrite_permission import RewriteReview
from worker.settings import Settings

CONNECT_S = 15.0
CALL_S = 15.0
_LIST = "device.pair.list"

ReviewRewrites = Callable[[LiveRoster], RewriteReview]
"""Returns what a write to a roster would rewrite, and how much of that is allowed."""


def examine(
    row: GatewayRow, fleet: Fleet, settings: Settings, review_rewrites: ReviewRewrites | None = None
) -> Report:
    """Connect once, check, and disconnect. Faults of the gateway, of its rows and of our key become
    findings."""
    report = Report(row.id, row.name, shown_url(row.url))
    report.extend(check_base_url(settings.base_url, row.url))
    try:
        _connect_and_check(row, fleet, settings, report, review_rewrites)
    except ProvisionerError as error:
        check = "device" if isinstance(error, DeviceKeyError) else "config" if report.version else "connect"
        report.note(check, str(error), "fault")
    return report


def _connect_and_check(
    row: GatewayRow, fleet: Fleet, settings: Settings, report: Report, review_rewrites: ReviewRewrites | None
) -> None:
    device_key = settings.gateway_device_key
    address = row.address
    made_now = not device_key.exists()
    device = DeviceKey.load_or_create(device_key)
    report.device_id = device.device_id
    report.note("device", device.device_id)
    if made_now:
        report.note(
            "device", f"its key was made just now, in {device_key}: give the workers the same file", "warning"
        )
    began = time.monotonic()
    with GatewayConnection.open(address, device, deadline_s=CONNECT_S) as connection:
        report.note("connect", f"let us in after {(time.monotonic() - began) * 1000:.0f} ms")
        _read_hello(connection.hello, report)
        report.paired = paired(connection, device.device_id)
        report.extend([pairing_finding(report.paired)])
        dialect, live = _read_dialect(connection, report)
        automations = (
            list(check_automations(connection, live, fleet.records, CALL_S)) if live is not None else []
        )
    if live is not None:
        report.agents = len(live.present)
        report.note("config", f"valid, {counted(report.agents, 'agent')} in the roster")
        report.extend(check_roster(dialect, live.document, fleet, row.name))
        report.extend(check_heartbeats(dialect, live.document))
        report.extend(automations)
        report.extend(check_settings(dialect, live.answer.get("config")))
        report.extend(check_variables(dialect, live.answer))
        if review_rewrites is not None:
            review = review_rewrites(live)
            report.writes_refused = bool(review.refused)
            report.extend(check_rewrites(live, review, row.name))
    report.extend(check_file_support(dialect))
    report.extend(check_renderings(dialect, fleet.records, settings.base_url, settings.templates_dir))


def _read_hello(hello: Hello, report: Report) -> None:
    report.version, report.protocol = hello.server_version, hello.protocol
    unnamed = " (the oldest releases do not say which they are)" if hello.server_version == "dev" else ""
    report.note("version", f"OpenClaw {hello.server_version}{unnamed}")
    report.note("protocol", f"{hello.protocol}; we speak {MIN_PROTOCOL} to {MAX_PROTOCOL}")
    if hello.scopes is None:
        report.note("scopes", "this release does not name those it granted")
    else:
        report.scopes = sorted(hello.scopes)
        report.note("scopes", ", ".join(report.scopes))


def _read_dialect(connection: GatewayConnection, report: Report) -> tuple[Dialect, LiveRoster | None]:
    """The gateway's dialect and its roster; None for a roster that cannot be known, which is a fault."""
    hello = connection.hello
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    unknown = None
    try:
        live = live_roster(connection)
    except RosterUnknownError as error:
        live, unknown = None, str(error)
    report.dialect = dialect.family
    heartbeat = "the heartbeat scratch" if dialect.heartbeat_in == "scratch" else dialect.heartbeat_in
    report.note(
        "dialect", f"{dialect.family}; token in {dialect.credentials_in}, heartbeat text in {heartbeat}"
    )
    if unknown is not None:
        report.note("config", unknown, "fault")
    return dialect, live


def live_roster(connection: GatewayConnection) -> LiveRoster:
    """Read the gateway's roster. Raises RosterUnknownError, GatewayError."""
    hello = connection.hello
    return read_roster(
        Dialect.from_hello(hello.server_version, hello.methods),
        lambda: connection.call("config.get", deadline_s=CALL_S),
        lambda: connection.call("agents.list", deadline_s=CALL_S),
    )


def compare_with_workers(report: Report, row: GatewayRow, *, refusal_forgotten: bool) -> None:
    """Add what the workers have on record of the gateway where it differs from what we saw."""
    if refusal_forgotten:
        report.note(
            "workers", "had noted this token as refused; they will use it again from now on", "warning"
        )
    elif row.refused_token_fingerprint and not report.ok:
        report.note("workers", "do not try a refused token again until it, or the URL, is changed", "warning")
    if row.down_for_s is not None:
        how = "they will see by themselves that it is up" if report.ok else "they go on trying"
        report.note("workers", f"have found it down for {row.down_for_s:.0f} s: {how}", "warning")
    if row.rate_limited_for_s is not None and row.rate_limited_for_s > 0:
        report.note(
            "workers", f"wait {row.rate_limited_for_s:.0f} s for its limit on config writes", "warning"
        )


def paired(connection: GatewayConnection, device_id: str) -> bool | None:
    """Whether the device is on the gateway's list; None if the gateway does not say. Raises TransientError.

    An accepted device need not be paired: the newest release admits any backend on its own machine.
    """
    if _LIST not in connection.hello.methods:
        return None
    try:
        payload = connection.call(_LIST, deadline_s=CALL_S)
        devices = Answer(payload, f"the gateway at {connection.address.url}", _LIST).records("paired")
    except PermanentGatewayError:
        return None
    return any(device.value.get("deviceId") == device_id for device in devices)


def pairing_finding(is_paired: bool | None) -> Finding:
    """The finding for what ``paired`` returned."""
    if is_paired is None:
        return Finding("pairing", "ok", "let in; this gateway does not say whether our device is paired")
    if is_paired:
        return Finding("pairing", "ok", "our device is paired")
    says = (
        "let in without being paired, as this gateway does from its own machine; from another one it will"
        " want the device approved: `openclaw devices approve` there"
    )
    return Finding("pairing", "ok", says)
