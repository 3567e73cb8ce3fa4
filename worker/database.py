"""The engine of this process: lazily made, parameters hidden, every wait bounded."""

from __future__ import annotations

from functools import cache

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text

from worker.settings import settings

_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_MS = 15_000
_POOL_WAIT_S = 20


def make_engine(url: str | URL, *, pool_size: int = 5) -> Engine:
    """An engine whose errors show no parameter values, and whose statements end within 15 seconds."""
    return create_engine(
        make_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_WAIT_S,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "application_name": "openclaw-provisioner",
            "options": f"-c statement_timeout={_STATEMENT_TIMEOUT_MS} -c timezone=UTC",
        },
    )


@cache
def engine() -> Engine:
    """The engine of this process: a connection for each slot at most, and two for the clock."""
    config = settings()
    return make_engine(config.database_url.get_secret_value(), pool_size=config.worker_concurrency + 2)


@cache
def has_column(table: str, column: str) -> bool:
    """Whether Mission Control's ``table`` has ``column``: versions differ (contract.md)."""
    with engine().connect() as connection:
        return column_exists(connection, table, column)


def column_exists(connection: Connection, table: str, column: str) -> bool:
    """As :func:`has_column`, over a given connection."""
    statement = text(
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attname = :column"
        " AND NOT attisdropped)"
    )
    return bool(connection.scalar(statement, {"table": table, "column": column}))
