"""A process's database engine, which hides parameters and bounds every wait, with or without a pooler.

Postgres takes ``statement_timeout`` and the time zone as connection options, which costs nothing. A pooler in
transaction mode keeps no server connection for us, so it refuses such options or drops them. Behind such a
pooler, each transaction makes these settings itself, in the same message as its BEGIN.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.database_errors import DatabaseNotNow, translate
from worker.database_url import connect_arguments
from worker.printable import to_jsonb

DATABASE_AWAY = (DatabaseNotNow, PoolTimeout)
"""The errors that mean that the database cannot be reached or used now (the table is in
`worker.database_errors`). No other database error passes by waiting."""

_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_MS = 15_000
_IDLE_TIMEOUT_MS = 30_000
"""After this long the server ends a session that idles in a transaction, and so frees what it has locked:
ours never idle there, but the host of a worker may vanish."""
_PATIENCE_S = 10.0
"""How much longer than its timeout a statement is waited for. A connection on which no answer came by then
leads nowhere, although something between us and the server may still acknowledge what we send."""
_POOL_WAIT_S = 20
_APPLICATION = "openclaw-provisioner"
_SILENCE = {
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""Connection options that give up on an unreachable server after about 20 seconds. By default the kernel
waits for a quarter of an hour, and the slot is blocked that long."""
_LOOK_EVERY_S = 0.1
_BEGIN = "provisioner_begin"

_KEPT = "provisioner.options"
"""A setting that no other program uses: a connection on which it is set has kept our options."""
_OURS: Mapping[str, str] = {
    "statement_timeout": str(_STATEMENT_TIMEOUT_MS),
    "idle_in_transaction_session_timeout": str(_IDLE_TIMEOUT_MS),
}
"""Settings that operators can change."""
_FIXED: Mapping[str, str] = {"datestyle": "ISO", "intervalstyle": "postgres", "timezone": "UTC"}
"""Settings that operators cannot change: Mission Control's timestamps are UTC but carry no time zone, and the
driver reads no other styles."""
_MEET = f"""
    SELECT current_setting('{_KEPT}', true), current_setting('search_path'),
        extract(epoch FROM current_setting('statement_timeout')::interval)::float,
        current_setting('TimeZone') = 'UTC' AND current_setting('DateStyle') LIKE 'ISO%'
            AND current_setting('IntervalStyle') = 'postgres'
"""
_OPTIONS_REFUSED = re.compile(r"startup parameter|command.line option|startup option", re.IGNORECASE)
_REFUSED = {
    "root certificate file": "the file of its option sslrootcert is not there",
    "password authentication failed": "the server refuses its user or password",
    "SASL authentication failed": "the server refuses its user or password",
    "no such database": "the server has no such database",
    "no password supplied": "the server wants a password, and it holds none",
    "no pg_hba.conf entry": "no rule of the server's pg_hba.conf lets this user in from here",
    "does not exist": "the server has no such database or user",
    "certificate verify failed": "the server's certificate is not trusted: name its CA with sslrootcert",
    "server certificate for": "the server's certificate is for another host",
    "unrecognized configuration parameter": "the server does not know a setting in its options or PGOPTIONS",
    "invalid command-line argument": "the server refuses its options or PGOPTIONS: write -c name=value",
    "requires a value": "the server refuses its options or PGOPTIONS: write -c name=value",
    "cannot be changed without restarting": "its options or PGOPTIONS hold a setting of the whole server",
    "invalid value for parameter": "the server does not know a value in its options or in a PG... variable",
    "channel binding required": "channel binding is asked for, which the server does not offer",
    "authentication method requirement": "the server asks for a password in a way that require_auth forbids",
    "could not parse network address": "its option hostaddr is no address",
    "server does not support SSL": "the server does not speak TLS, which its option sslmode asks for",
}
"""Sentences for connections that will be refused again, by a part of the server's or libpq's message."""


def make_engine(url: str | URL, *, pool_size: int = 5) -> Engine:
    """Make an engine whose errors show no parameter values and whose statements end within 15 seconds."""
    url = make_url(url)
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_WAIT_S,
        hide_parameters=True,
        json_serializer=to_jsonb,
    )
    event.listen(engine, "do_connect", lambda _dialect, _record, _args, arguments: _connect(arguments))
    theirs = _settings_in(str(url.query.get("options", os.environ.get("PGOPTIONS", ""))))
    event.listen(engine, "connect", lambda connection, record: _meet(connection, record, theirs))
    event.listen(engine, "begin", _begin)
    event.listen(engine, "checkout", _require_alive)
    event.listen(engine, "handle_error", translate)
    return engine


@contextmanager
def single(engine: Engine) -> Iterator[Connection]:
    """A connection in autocommit mode for a single statement.

    Autocommit saves BEGIN and COMMIT, two of three round trips. Behind a pooler the statement runs in an
    ordinary transaction instead, because its timeout is set when a transaction begins.
    """
    with engine.connect() as connection:
        if _BEGIN in connection.connection.info:
            with connection.begin():
                yield connection
        else:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")


def refusal_of(url: str) -> str | None:
    """Why the server refuses connections, if an operator must change something.

    None if a connection succeeds, or fails for any other reason, such as an unreachable server.
    """
    try:
        _connect(connect_arguments(make_url(url))).close()
    except psycopg.Error as error:
        message = str(error)
        return next((sentence for sign, sentence in _REFUSED.items() if sign in message), None)
    return None


class _BoundedConnection(psycopg.Connection[Any]):
    """Waits for each answer at most ``limit_s`` seconds, then ends itself and raises OperationalError."""

    limit_s: float | None = _STATEMENT_TIMEOUT_MS / 1000 + _PATIENCE_S

    def bound(self, statement_timeout_s: float) -> None:
        """Wait for as long as statements may take, and some more; 0: without a limit."""
        self.limit_s = statement_timeout_s + _PATIENCE_S if statement_timeout_s else None

    def wait(self, gen: Any, interval: float = _LOOK_EVERY_S, timeout: float | None = None) -> Any:
        limit_s = self.limit_s if timeout is None else timeout
        began = time.monotonic()
        try:
            return super().wait(gen, interval, limit_s)
        except psycopg.OperationalError as error:
            if timeout is not None or limit_s is None or time.monotonic() - began < 0.9 * limit_s:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server has not answered for {limit_s:g} s") from error


def _connect(arguments: dict[str, Any]) -> _BoundedConnection:
    """Connect with our options and the operator's, or without any if a pooler refuses them."""
    given = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "application_name": _APPLICATION,
        "client_encoding": "utf8",
        **_SILENCE,
        **arguments,
    }
    ours = " ".join(f"-c {name}={value}" for name, value in _OURS.items())
    theirs = given.pop("options", os.environ.get("PGOPTIONS", ""))
    fixed = " ".join(f"-c {name}={value}" for name, value in _FIXED.items())
    options = f"{ours} {theirs} {fixed} -c {_KEPT}=kept"
    try:
        return _BoundedConnection.connect(**given, options=options)
    except psycopg.OperationalError as error:
        if not _OPTIONS_REFUSED.search(str(error)):
            raise
    # Without options, libpq would send those of PGOPTIONS.
    return _BoundedConnection.connect(**given, options="")


def _meet(connection: _BoundedConnection, record: Any, theirs: Mapping[str, str]) -> None:
    """Prepare a new connection: see whether it kept our options, and append ``public`` to its search path.

    Mission Control's tables are in ``public`` unless an earlier schema has them. ``theirs``: the settings
    among the operator's options.
    """
    connection.autocommit = True
    kept, path, timeout_s, fixed = connection.execute(_MEET).fetchone() or (None, "", 0.0, True)
    if kept is not None:
        connection.bound(timeout_s)
        if not fixed:  # PGTZ or PGDATESTYLE: libpq sends them after our options
            for name, value in _FIXED.items():
                connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        if (longer := _with_public(path)) != path:
            connection.execute("SELECT set_config('search_path', %s, false)", [longer])
        connection.autocommit = False
        return
    # The connection stays in autocommit, because our transactions send their own BEGIN. No statement is
    # prepared: it would stay on one server connection, and the next transaction may get another.
    connection.prepare_threshold = None
    path = theirs.get("search_path", path)
    settings = {**_OURS, **theirs, **_FIXED}
    read = "SELECT extract(epoch FROM set_config('statement_timeout', %s, true)::interval)::float"
    connection.bound((connection.execute(read, [settings["statement_timeout"]]).fetchone() or (0.0,))[0])
    if _with_public(path) != path:
        settings["search_path"] = _with_public(path)
    record.info[_BEGIN] = _begin_statement(settings, connection)


def _settings_in(options: str) -> dict[str, str]:
    """The settings that ``-c name=value`` and ``--name=value`` make in connection options, by name."""
    found = re.findall(r"(?:^|\s)(?:-c\s*|--)([A-Za-z_.-]+)=((?:\\.|\S)*)", options)
    return {name.lower().replace("-", "_"): re.sub(r"\\(.)", r"\1", value) for name, value in found}


def _with_public(path: str) -> str:
    """The search path with ``public`` appended, unless it is already there."""
    searched = {schema.strip().strip('"') for schema in path.split(",")} - {""}
    if "public" in searched:
        return path
    return f"{path}, public" if searched else "public"


def _begin_statement(settings: Mapping[str, str], connection: psycopg.Connection[Any]) -> str:
    """BEGIN with settings for the transaction, in one message: one round trip, as BEGIN alone would take."""
    calls = (
        sql.SQL("set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
        for name, value in settings.items()
    )
    return "BEGIN; SELECT " + sql.SQL(", ").join(calls).as_string(connection).replace("%", "%%")


def _begin(connection: Connection) -> None:
    statement = connection.connection.info.get(_BEGIN)
    if statement is not None:
        connection.exec_driver_sql(statement)


def _require_alive(connection: Any, *_: Any) -> None:
    """Raise DisconnectionError for a connection that ended while it was idle, so that the pool opens another.

    An idle connection that has something to read has ended. A ping at each checkout would add one round trip
    to every three.
    """
    poll = select.poll()
    if not connection.closed:
        poll.register(connection.fileno(), select.POLLIN)
    if connection.closed or poll.poll(0):
        raise DisconnectionError("the connection ended while it was idle")
