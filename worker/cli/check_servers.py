"""What is risky about the servers that DATABASE_URL and REDIS_URL name."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from sqlalchemy import make_url

from worker.broker import look_at
from worker.cli.findings import Finding
from worker.database_url import connect_arguments
from worker.settings import Settings

_VERIFIED = ("verify-ca", "verify-full")


def check_servers(settings: Settings) -> Iterator[Finding]:
    """Findings for doctor; none where all is well."""
    finding = _check_verified(settings.database_url.get_secret_value())
    if finding is not None:
        yield finding
    if settings.redis_url.get_secret_value():
        yield from _check_broker(settings)


def _check_verified(url: str) -> Finding | None:
    """A warning where the database is on another machine and its certificate is not verified."""
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
    if host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _check_broker(settings: Settings) -> Iterator[Finding]:
    seen = look_at(settings.broker)
    if seen.fault is not None:
        yield Finding("broker", "fault", f"REDIS_URL: {seen.fault}")
    elif seen.away is not None:
        yield Finding(
            "broker", "warning", f"the Redis of REDIS_URL cannot be reached from here ({seen.away})"
        )
    elif seen.warning is not None:
        yield Finding("broker", "warning", seen.warning)
