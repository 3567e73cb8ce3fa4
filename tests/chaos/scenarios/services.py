"""The broker and the database are restarted, full, locked, forgetful, or let nobody in."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis
from psycopg import sql
from sqlalchemy import make_url

from tests.bouncer import PROGRAM, bouncer
from tests.chaos.scenario import Scenario
from tests.chaos.stage import Stage
from tests.worker_process import WorkerProcess

LONG_LOCK_S = 16.0
"""Longer than a worker's statement may take."""


def broker_restarted(stage: Stage) -> None:
    """The broker is killed or stopped, and comes back with all that it had taken."""

    def restart() -> None:
        _restart_broker(stage, lose=False)

    _disturbed(stage, restart, (0.3, 2.5), most=8)


def broker_forgets(stage: Stage) -> None:
    """The broker is killed or stopped, and comes back empty. Rows lose nothing by that."""
    stage.asks_by_rows = True

    def restart() -> None:
        _restart_broker(stage, lose=True)

    _disturbed(stage, restart, (0.5, 4.0), most=4)


def broker_full(stage: Stage) -> None:
    """The broker refuses all that would take memory, also to note what a worker has taken from its queue."""

    def fill() -> None:
        with _broker(stage) as client:
            client.config_set("maxmemory", 1)
            time.sleep(stage.rng.uniform(0.2, 2.0))
            client.config_set("maxmemory", 0)
        stage.broken += 1

    _disturbed(stage, fill, (0.1, 1.5), most=10)


def broker_evicts(stage: Stage) -> None:
    """The broker drops whatever it likes to make room: queues, what was taken from them, bindings."""
    stage.asks_by_rows = True

    def evict() -> None:
        with _broker(stage) as client:
            client.config_set("maxmemory-policy", "allkeys-random")
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]))
            time.sleep(stage.rng.uniform(0.2, 2.0))
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")
        stage.broken += 1

    _disturbed(stage, evict, (0.2, 2.0), most=8)


def database_restarted(stage: Stage) -> None:
    """The database is killed or stopped, and comes back after a moment."""

    def restart() -> None:
        server = stage.services.postgres
        stage.rng.choice((server.kill, server.stop))()
        time.sleep(stage.rng.uniform(0.0, 1.5))
        stage.patiently(server.start)
        stage.broken += 1

    _disturbed(stage, restart, (0.5, 3.0), most=5)


def out_of_connections(stage: Stage) -> None:
    """The sessions of workers end, and few or none of them are let in again for a while."""
    name, password = f"few_{secrets.token_hex(4)}", secrets.token_hex(8)
    role = sql.Identifier(name)
    stage.enter(_a_role(stage, name, password))
    url = make_url(stage.workshop.database_url).set(username=name, password=password)
    for _ in range(2):
        stage.start_worker(DATABASE_URL=url.render_as_string(hide_password=False))

    def exhaust() -> None:
        with stage.administrator() as server:
            server.execute(
                sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(role, sql.Literal(stage.rng.randrange(4)))
            )
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [name]
            )
            time.sleep(stage.rng.uniform(0.3, 3.0))
            server.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT -1").format(role))
        stage.broken += 1

    _disturbed(stage, exhaust, (0.3, 2.0), most=5)


def read_only(stage: Stage) -> None:
    """The database takes no writes for a while, from everybody at once, as after a failover, or in new
    sessions."""

    def refuse() -> None:
        everybody = stage.rng.random() < 0.5
        setting = sql.SQL("default_transaction_read_only")
        which = (
            sql.SQL("ALTER SYSTEM")
            if everybody
            else sql.SQL("ALTER DATABASE {}").format(sql.Identifier(stage.database))
        )
        with stage.administrator() as server:
            for change in ("SET {} = on", "RESET {}"):
                server.execute(sql.SQL("{} " + change).format(which, setting))
                if everybody:
                    server.execute("SELECT pg_reload_conf()")
                else:
                    _end_sessions(stage, share=1.0)
                if change.startswith("SET"):
                    time.sleep(stage.rng.uniform(0.3, 3.0))
        stage.broken += 1

    _disturbed(stage, refuse, (0.3, 2.0), most=5)


def sessions_ended(stage: Stage) -> None:
    """Some of the database's sessions end, whatever they are doing."""

    def end() -> None:
        stage.broken += _end_sessions(stage, share=stage.rng.uniform(0.2, 1.0))

    _disturbed(stage, end, (0.05, 0.8), most=25)


def agents_locked(stage: Stage) -> None:
    """Somebody locks all agents; once for longer than a statement may take."""
    long = iter([LONG_LOCK_S])

    def lock() -> None:
        held_s = next(long, stage.rng.uniform(0.2, 3.0))
        with stage.administrator(stage.database) as session, session.transaction():
            session.execute("LOCK TABLE agents IN ACCESS EXCLUSIVE MODE")
            time.sleep(held_s)
        stage.broken += 1

    _disturbed(stage, lock, (0.2, 2.0), most=5)


def behind_a_pooler(stage: Stage) -> None:
    """All of the work through PgBouncer in transaction mode, with fewer connections than slots, while workers
    are killed and sessions of the server end."""
    lines = ("default_pool_size = 4", "server_idle_timeout = 1", "server_check_delay = 0")
    url = stage.enter(bouncer(stage.workshop.database_url, *lines))
    for _ in range(2):
        stage.start_worker(DATABASE_URL=url)

    def disturb() -> None:
        if stage.rng.random() < 0.5:
            stage.broken += _end_sessions(stage, share=0.5)
        else:
            stage.replace(stage.rng.choice(stage.workers), WorkerProcess.kill, DATABASE_URL=url)

    _disturbed(stage, disturb, (0.3, 2.0), most=10)


def _disturbed(stage: Stage, disturb: Callable[[], None], pause_s: tuple[float, float], *, most: int) -> None:
    """Do the commission while that happens, at most so often: each time costs a second or more."""
    times = iter(range(most))

    def once_more() -> None:
        if next(times, None) is not None:
            disturb()

    with stage.disturbed_by(once_more, pause_s):
        stage.commission()


def _restart_broker(stage: Stage, *, lose: bool) -> None:
    broker = stage.services.valkey
    stage.rng.choice((broker.kill, broker.stop))()
    if lose:
        shutil.rmtree(broker.data)
    time.sleep(stage.rng.uniform(0.1, 2.0))
    stage.patiently(broker.start)
    stage.broken += 1


@contextmanager
def _broker(stage: Stage) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(stage.workshop.redis_url) as client:
        yield client


def _end_sessions(stage: Stage, *, share: float) -> int:
    """End some sessions of the stage's database; how many."""
    with stage.administrator() as server:
        found = server.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s ORDER BY pid", [stage.database]
        ).fetchall()
        chosen = [row[0] for row in found if stage.rng.random() < share]
        server.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [chosen])
    return len(chosen)


@contextmanager
def _a_role(stage: Stage, name: str, password: str) -> Iterator[None]:
    """A role that may what the owner of the database may, but is no superuser, whom no limit concerns."""
    owner = make_url(stage.workshop.database_url).username or ""
    with stage.administrator() as server:
        query = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
        server.execute(query.format(sql.Identifier(name), sql.Literal(password), sql.Identifier(owner)))
    try:
        yield
    finally:
        with stage.administrator(stage.database) as server:
            server.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


SCENARIOS = (
    Scenario("broker restarted", broker_restarted),
    Scenario("broker restarted, data lost", broker_forgets),
    Scenario("broker full", broker_full),
    Scenario("broker evicts", broker_evicts),
    Scenario("database restarted", database_restarted),
    Scenario("database out of connections", out_of_connections, workers=0),
    Scenario("database read-only", read_only),
    Scenario("database sessions ended", sessions_ended),
    Scenario("database agents locked", agents_locked),
    Scenario(
        "database behind a pooler",
        behind_a_pooler,
        workers=0,
        lacks=lambda: None if PROGRAM else "there is no pgbouncer on PATH",
    ),
)
