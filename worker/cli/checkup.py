"""What is right and wrong with one gateway, as far as a connection to it tells."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, text

from worker.cli.inventory import shown_url
from worker.errors import ProvisionerError
from worker.gateway.address import GatewayAddress
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey, DeviceKeyError
from worker.gateway.dialect import Dialect
from worker.gateway.protocol import MAX_PROTOCOL, MIN_PROTOCOL, Hello
from worker.gateway.roster import roster_ids
from worker.provisioning.outage import fingerprint

CONNECT_S = 15.0
CALL_S = 15.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``says``: what was found and, where it is not right, the cure."""

    check: str
    status: Literal["ok", "warning", "fault"]
    says: str


@dataclass
class Checkup:
    """All that was found; the fields after ``findings`` stay None where the gateway did not let us in."""

    gateway_id: UUID
    gateway: str
    url: str
    findings: list[Finding] = field(default_factory=list)
    device_id: str | None = None
    version: str | None = None
    protocol: int | None = None
    scopes: list[str] | None = None
    dialect: str | None = None
    agents: int | None = None

    @property
    def ok(self) -> bool:
        """Whether no finding is a fault."""
        return all(finding.status != "fault" for finding in self.findings)

    def note(self, check: str, says: str, status: Literal["ok", "warning", "fault"] = "ok") -> None:
        """Add a finding."""
        self.findings.append(Finding(check, status, says))


@dataclass(frozen=True)
class GatewayRow:
    """A gateway with what the workers noted of it; times in seconds."""

    id: UUID
    name: str
    url: str
    token: str | None = field(repr=False)
    allow_insecure_tls: bool
    down_for_s: float | None
    rate_limited_for_s: float | None
    refused_token_fingerprint: str | None
    last_error: str | None


_ROW = text("""
    SELECT g.id, g.name, coalesce(g.url, '') AS url, g.token,
        coalesce((to_jsonb(g) ->> 'allow_insecure_tls')::boolean, false) AS allow_insecure_tls,
        extract(epoch FROM now() - s.down_since)::float AS down_for_s,
        extract(epoch FROM s.rate_limited_until - now())::float AS rate_limited_for_s,
        s.refused_token_fingerprint, s.last_error
    FROM gateways g LEFT JOIN provisioner.gateway_states s ON s.gateway_id = g.id
    WHERE g.id = :gateway_id
""")


def read_gateway(connection: Connection, gateway_id: UUID) -> GatewayRow:
    """The gateway's row."""
    return GatewayRow(**connection.execute(_ROW, {"gateway_id": gateway_id}).one()._mapping)


_FORGET = text("""
    UPDATE provisioner.gateway_states SET refused_token_fingerprint = NULL, last_error = NULL
    WHERE gateway_id = :gateway_id AND refused_token_fingerprint = :fingerprint
""")


def forget_refusal(connection: Connection, row: GatewayRow) -> bool:
    """The gateway takes a token again: let the workers use it. Says whether they had noted it as refused."""
    address = GatewayAddress(row.url, row.token)
    values = {"gateway_id": row.id, "fingerprint": fingerprint(address)}
    return connection.execute(_FORGET, values).rowcount > 0


def examine(row: GatewayRow, device_key: Path) -> Checkup:
    """Connect once, look, and hang up. Whatever the gateway, its row or our key do wrong is a finding."""
    found = Checkup(row.id, row.name, shown_url(row.url))
    try:
        _look(row, device_key, found)
    except ProvisionerError as error:
        check = "device" if isinstance(error, DeviceKeyError) else "config" if found.version else "connect"
        found.note(check, str(error), "fault")
    return found


def _look(row: GatewayRow, device_key: Path, found: Checkup) -> None:
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
        _read_config(connection, found)


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


def _read_config(connection: GatewayConnection, found: Checkup) -> None:
    hello = connection.hello
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    config = connection.call("config.get", deadline_s=CALL_S)
    dialect.confirm(config)
    found.dialect = dialect.family
    heartbeat = "the heartbeat scratch" if dialect.heartbeat_in == "scratch" else dialect.heartbeat_in
    found.note(
        "dialect", f"{dialect.family}; token in {dialect.credentials_in}, heartbeat text in {heartbeat}"
    )
    if config.get("valid") is False:
        found.note("config", "openclaw.json is invalid: run `openclaw doctor` on the gateway", "fault")
        return
    found.agents = len(roster_ids(dialect, config.get("parsed") or {}))
    found.note("config", f"valid, {found.agents} agents in the roster")


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
