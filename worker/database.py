"""The engine of this process: lazily made, parameters hidden, every wait bounded."""

from __future__ import annotations

import select
from functools import cache
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.settings import settings

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""What says that the database cannot be reached or used now; any other of its errors is a fault of ours."""

_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_MS = 15_000
_POOL_WAIT_S = 20


def make_engine(url: str | URL, *, pool_size: int = 5) -> Engine:
    """An engine whose errors show no parameter values, and whose statements end within 15 seconds."""
    engine = create_engine(
        make_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_WAIT_S,
        hide_parameters=True,
        connect_args={
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "application_name": "openclaw-provisioner",
            "options": f"-c statement_timeout={_STATEMENT_TIMEOUT_MS} -c timezone=UTC",
        },
    )
    event.listen(engine, "checkout", _require_alive)
    return engine


def single(engine: Engine) -> Connection:
    """A connection for one statement, which is a transaction of its own: that spares BEGIN and COMMIT, two of
    three round trips. To be used as a context manager."""
    return engine.execution_options(isolation_level="AUTOCOMMIT").connect()


def _require_alive(connection: Any, *_: Any) -> None:
    """Raises DisconnectionError, upon which the pool opens another, for a connection that ended while it was
    idle: there is nothing else that it could have to read. A ping each time would be a round trip in four."""
    poll = select.poll()
    if not connection.closed:
        poll.register(connection.fileno(), select.POLLIN)
    if connection.closed or poll.poll(0):
        raise DisconnectionError("the connection ended while it was idle")


@cache
def engine() -> Engine:
    """The engine of this process: a connection for each slot at most, and two for the clock."""
    config = settings()
    return make_engine(config.database_url.get_secret_value(), pool_size=config.worker_concurrency + 2)
