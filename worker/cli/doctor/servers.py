"""Checks the database, the broker and Mission Control as the workers and agents will meet them."""

from __future__ import annotations

import ipaddress
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from urllib.parse import urlsplit

from sqlalchemy import Connection, make_url, text

from worker import rights
from worker.broker import check_broker
from worker.cli.console import counted
from worker.cli.doctor.report import Finding
from worker.database_url import connect_arguments
from worker.errors import PermanentError
from worker.gateway.address import GatewayAddress
from worker.gateway.errors import BadAddress
from worker.settings import Settings

TIMEOUT_S = 3.0
_BASE_URL = "BASE_URL"
_VERIFIED = ("verify-ca", "verify-full")
_WRITES = text(
    "SELECT current_setting('transaction_read_only') = 'off' AS writes, pg_is_in_recovery() AS standby"
)
_PAUSED = text("""
    SELECT name, last_pause, extract(epoch FROM now() - last_pause_at)::float AS ago_s
    FROM provisioner.workers WHERE last_pause_at > now() - interval '1 hour' ORDER BY last_pause_at DESC
""")


_WEBHOOKS = text("""
    SELECT w.name, w.failures, w.last_error, count(j.id) AS waiting,
        count(j.id) FILTER (WHERE d.attempts = 0 AND w.not_before < now() - interval '1 minute'
                            AND j.finished_at < now() - interval '1 minute') AS unsent
    FROM provisioner.webhooks w
    LEFT JOIN provisioner.webhook_deliveries d ON d.webhook_id = w.id AND d.status = 'pending'
    LEFT JOIN provisioner.jobs j ON j.id = d.job_id AND j.finished_at IS NOT NULL
    GROUP BY w.id ORDER BY w.name
""")


def check_database(connection: Connection) -> Iterator[Finding]:
    """Check whether the database accepts writes, what this role may do, and which workers had to wait."""
    row = connection.execute(_WRITES).one()
    if not row.writes:
        what = "is a standby" if row.standby else "is read-only (default_transaction_read_only)"
        yield Finding("database", "fault", f"it {what}: workers take no work until it takes writes")
    lacks = rights.missing_rights(connection, rights.WORKER)
    if lacks:
        text = f"workers of this role wait: {rights.sentence(connection, lacks)}"
        yield Finding("rights", "fault", text, [lack.table for lack in lacks])
        return
    for kind in rights.KIND_RIGHTS:
        try:
            rights.require_for(connection, kind)
        except PermanentError as error:
            yield Finding("rights", "warning", str(error))
    for paused in connection.execute(_PAUSED):
        ago = counted(round(paused.ago_s / 60), "minute")
        text = f"worker {paused.name} waited for it {ago} ago: {paused.last_pause}"
        yield Finding("database", "warning", text)
    yield from _check_webhooks(connection)


def _check_webhooks(connection: Connection) -> Iterator[Finding]:
    """Warn of webhooks that do not accept messages, and of messages that no worker sends."""
    for webhook in connection.execute(_WEBHOOKS):
        name = repr(webhook.name)
        if webhook.failures:
            text = f"webhook {name} failed {webhook.failures} times in a row: {webhook.last_error}"
            yield Finding("webhooks", "warning", text)
        elif webhook.unsent:
            waiting = f"{counted(webhook.waiting, 'message')} to webhook {name}"
            text = f"{waiting} not sent within a minute: start a worker that has WEBHOOK_KEY"
            yield Finding("webhooks", "warning", text)


def check_servers(settings: Settings) -> Iterator[Finding]:
    """Check the connections to database and broker; nothing is found if all is well."""
    finding = _check_verified(settings.database_url.get_secret_value())
    if finding is not None:
        yield finding
    if settings.redis_url.get_secret_value():
        yield from _check_broker(settings)


def _check_verified(url: str) -> Finding | None:
    """A warning if the database is on another machine and its certificate is not verified."""
    given = connect_arguments(make_url(url))
    hosts = [host for host in str(given.get("host") or "").split(",") if host]
    if given.get("sslmode") in _VERIFIED or given.get("sslrootcert") == "system" or all(map(_is_here, hosts)):
        return None
    return Finding(
        "database",
        "warning",
        "the database is on another machine, and nobody verifies that it is the right one: add"
        " sslmode=verify-full and sslrootcert to DATABASE_URL",
    )


def _is_here(host: str) -> bool:
    return host.startswith("/") or _is_loopback(host)


def _check_broker(settings: Settings) -> Iterator[Finding]:
    seen = check_broker(settings.broker)
    if seen.fault is not None:
        yield Finding("broker", "fault", f"REDIS_URL: {seen.fault}")
    elif seen.away is not None:
        yield Finding(
            "broker", "warning", f"the Redis of REDIS_URL cannot be reached from here ({seen.away})"
        )
    elif seen.warning is not None:
        yield Finding("broker", "warning", seen.warning)


def check_base_url(base_url: str, gateway_url: str) -> Iterator[Finding]:
    """GET {base_url}/healthz, as an agent would (interfaces.md 7).

    A failure is only a warning: agents call from the gateway's machine, which may reach more or less than
    this one.
    """
    if not base_url:
        says = "not set here, so not tried: set it as the workers have it, to have it checked"
        yield Finding(_BASE_URL, "warning", says)
        return
    parts = urlsplit(base_url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if _is_loopback(parts.hostname or "") and not _gateway_is_here(gateway_url):
        says = f"{shown} names the gateway's own machine to the agents there: set one that they can reach"
        yield Finding(_BASE_URL, "warning", says)
    try:
        with urllib.request.urlopen(f"{base_url}/healthz", timeout=TIMEOUT_S) as answer:
            yield Finding(_BASE_URL, "ok", f"{shown}/healthz answers {answer.status}")
            return
    except urllib.error.HTTPError as error:
        error.close()
        why = f"answers {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        why = f"does not answer ({getattr(reason, 'strerror', None) or type(reason).__name__})"
    says = f"{shown}/healthz {why}: agents could not report; start Mission Control, or correct BASE_URL"
    yield Finding(_BASE_URL, "warning", says)


def _gateway_is_here(url: str) -> bool:
    try:
        return GatewayAddress(url).is_loopback
    except BadAddress:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
