"""The engine's connections: those that died while they were idle are noticed before they are used."""

from __future__ import annotations

import psycopg
from sqlalchemy import text

from worker.database import make_engine
from worker.local import LocalServices


def test_connections_that_ended_while_idle_are_replaced_unseen(
    services: LocalServices, database_url: str
) -> None:
    engine = make_engine(database_url, pool_size=3)
    try:
        held = [engine.connect() for _ in range(3)]
        pids = [connection.scalar(text("SELECT pg_backend_pid()")) for connection in held]
        for connection in held:
            connection.close()
        with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as admin:
            for pid in pids:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        again = [engine.connect() for _ in range(3)]
        for connection in again:
            assert connection.scalar(text("SELECT pg_backend_pid()")) not in pids
            connection.close()
    finally:
        engine.dispose()
