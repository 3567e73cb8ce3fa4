"""The engine of this process: lazily made, parameters hidden, every wait bounded."""

from __future__ import annotations

from functools import cache

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.settings import settings

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""What says that the database cannot be reached or used now; any other of its errors is a fault of ours."""

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
