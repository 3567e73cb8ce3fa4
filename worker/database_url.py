"""Parses DATABASE_URL, and checks it before any connection is tried."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from worker.urls import ServerUrl, split_url, unknown_option

SCHEMES = ("postgresql+psycopg", "postgresql", "postgres")
_NUMBERS = ("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count")
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_SEVERAL = ("host", "port")
_FIXED = ("replication", "client_encoding")
"""Options of libpq that an operator must not set."""
_PORT = 5432
_NOWHERE = "/nonexistent"


def read_database_url(text: str, password: str | None = None) -> URL:
    """Parse DATABASE_URL into SQLAlchemy's URL; ``password`` is used if the URL holds none.

    Raises ValueError, whose message quotes nothing from the URL except the names of its options.
    """
    if not text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        raise ValueError("must begin with postgresql+psycopg://")
    parts = split_url(text)
    hosts, ports = _places(parts)
    options: dict[str, str | tuple[str, ...]] = {}
    if len(hosts) > 1 and any(ports):
        ports = [port or _PORT for port in ports]
    if len(hosts) > 1 or hosts[0].startswith("/"):
        options["host"] = tuple(
            f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True)
        )
        hosts, ports = [""], [None]
    options |= _options(parts)
    if not re.fullmatch(r"[^?#%/@&]*", parts.path):
        options["dbname"] = parts.path
    own = options.pop("password", None)
    if own is not None and (parts.password or not isinstance(own, str)):
        raise ValueError("holds two passwords: keep the one behind the user name")
    url = URL.create(
        "postgresql+psycopg",
        username=parts.user,
        password=parts.password or own or password,
        host=hosts[0] or None,
        port=ports[0],
        database=None if "dbname" in options else parts.path or None,
        query=options,
    )
    try:
        _ask_libpq(url)
    except ArgumentError:  # SQLAlchemy's message quotes what it cannot parse
        raise ValueError("holds hosts and ports that do not go together: check them") from None
    return url


def _places(parts: ServerUrl) -> tuple[list[str], list[int | None]]:
    return [place.host for place in parts.places], [place.port for place in parts.places]


def _options(parts: ServerUrl) -> dict[str, str | tuple[str, ...]]:
    from psycopg import pq

    known = [option.keyword.decode() for option in pq.Conninfo.get_defaults()]
    known = sorted(set(known) - set(_FIXED))
    found: dict[str, str | tuple[str, ...]] = {}
    for name, value in parts.options:
        if name not in known:
            raise unknown_option(name, known)
        if name in _NUMBERS and not re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
            raise ValueError(f"holds the option `{name}`, which must be a number of seconds")
        if name == "port" and not re.fullmatch(r"[0-9]{1,5}(,[0-9]{1,5})*", value):
            raise ValueError("holds the option `port`, which must be a number")
        if name in _FILES and value not in ("", "system") and not _is_readable(value):
            raise ValueError(f"holds the option `{name}`, whose file cannot be read")
        earlier = found.get(name)
        if earlier is not None and name not in _SEVERAL:
            raise ValueError(f"holds the option `{name}` twice: keep one")
        found[name] = value if earlier is None else (*_several(earlier), value)
    return found


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,)


def _is_readable(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.R_OK)


def _ask_libpq(url: URL) -> None:
    """Have libpq check the options as it does before it connects; every host is replaced by a socket that
    does not exist, so it cannot connect. Raises ValueError if it refuses them."""
    from psycopg import pq
    from psycopg.conninfo import make_conninfo

    arguments = connect_arguments(url)
    places = str(arguments.pop("host", "")).count(",") + 1
    for name in ("hostaddr", "password"):
        arguments.pop(name, None)
    connection = pq.PGconn.connect_start(
        make_conninfo("", host=",".join([_NOWHERE] * places), **arguments).encode()
    )
    message = connection.error_message.decode(errors="replace")
    connection.finish()
    if "connection to server" in message:
        return
    named = re.search(r'invalid "?([a-z_]+)"? value', message)
    if named is not None:
        raise ValueError(f"holds the option `{named[1]}` with a value that Postgres's library does not know")
    raise ValueError("holds options that do not go together, or a service that is not defined: check them")


def connect_arguments(url: URL) -> dict[str, Any]:
    """The arguments that the driver gets for ``url``."""
    return dict(url.get_dialect()().create_connect_args(url)[1])
