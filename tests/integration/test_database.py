"""The engine's connections: dead ones are replaced, every statement is bounded, tables are found."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import URL, Engine, event, make_url, text
from sqlalchemy.exc import OperationalError

from models.migrate import migrate
from tests.bouncer import bouncer
from tests.chaos.proxy import Proxy
from worker import database
from worker.database import make_engine, refusal_of, single
from worker.database_errors import DatabaseNotNow
from worker.lab.servers import LocalServices

_SHOWN = text("SELECT current_setting('statement_timeout'), current_setting('TimeZone')")


@contextmanager
def made(url: str | URL, **options: Any) -> Iterator[Engine]:
    engine = make_engine(url, **options)
    try:
        yield engine
    finally:
        engine.dispose()


def plain(url: str) -> str:
    return url.replace("+psycopg", "")


def test_connections_that_ended_while_idle_are_replaced_unseen(
    services: LocalServices, database_url: str
) -> None:
    with made(database_url, pool_size=3) as engine:
        held = [engine.connect() for _ in range(3)]
        pids = [connection.scalar(text("SELECT pg_backend_pid()")) for connection in held]
        for connection in held:
            connection.close()
        with psycopg.connect(plain(database_url), autocommit=True) as admin:
            for pid in pids:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        again = [engine.connect() for _ in range(3)]
        for connection in again:
            assert connection.scalar(text("SELECT pg_backend_pid()")) not in pids
            connection.close()


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_PATIENCE_S", 0.1)


def bounded(engine: Engine) -> bool:
    """Whether statements run with their timeout and in UTC, both in a transaction and alone."""
    with engine.begin() as connection:
        within = connection.execute(_SHOWN).one()
    with single(engine) as connection:
        alone = connection.execute(_SHOWN).one()
    return tuple(within) == tuple(alone) == ("15s", "UTC")


def test_every_statement_is_bounded_and_in_utc(database_url: str) -> None:
    with made(database_url) as engine:
        assert bounded(engine)


def test_an_operators_options_are_kept_beside_ours(database_url: str) -> None:
    with made(f"{database_url}?options=-c%20work_mem%3D9MB%20-c%20timezone%3DAsia/Tokyo") as engine:
        assert bounded(engine)
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW work_mem")) == "9MB"
    chosen = f"{database_url}?options=-c%20statement_timeout%3D7s&application_name=mine"
    with made(chosen) as engine, engine.connect() as connection:
        assert tuple(connection.execute(_SHOWN).one()) == ("7s", "UTC")
        assert connection.scalar(text("SHOW application_name")) == "mine"


def test_what_libpq_reads_from_the_environment_does_not_change_what_we_rely_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=9MB -c intervalstyle=iso_8601")
    with made(database_url) as engine:
        assert bounded(engine)
        with engine.connect() as connection:
            styles = text("SELECT now(), interval '90 s', current_setting('work_mem')")
            at, lasts, memory = connection.execute(styles).one()
            assert (at.utcoffset(), lasts, memory) == (timedelta(0), timedelta(seconds=90), "9MB")


@pytest.mark.parametrize("path", ["elsewhere", '"$user",elsewhere', "", "pg_catalog"])
def test_mission_controls_tables_are_found_whatever_the_search_path(database_url: str, path: str) -> None:
    with psycopg.connect(plain(database_url), autocommit=True) as admin:
        admin.execute("CREATE SCHEMA elsewhere")
    encoded = path.replace(" ", "%20").replace('"', "%22").replace("$", "%24")
    with made(f"{database_url}?options=-csearch_path%3D{encoded}") as engine:
        for _ in range(2):
            with engine.begin() as connection:
                assert connection.scalar(text("SELECT count(*) FROM agents")) == 0
        migrate(engine, standalone=True)


def test_tables_in_a_schema_of_the_search_path_come_before_those_of_public(
    empty_database_url: str, database_url: str
) -> None:
    with psycopg.connect(plain(empty_database_url), autocommit=True) as admin:
        admin.execute("CREATE SCHEMA mc")
    with made(empty_database_url) as engine:
        migrate(engine, standalone=True)
        with engine.begin() as connection:
            for table in (
                "organizations",
                "organization_members",
                "users",
                "gateways",
                "boards",
                "board_memory",
            ):
                connection.execute(text(f"ALTER TABLE {table} SET SCHEMA mc"))
            connection.execute(text("ALTER TABLE agents SET SCHEMA mc"))
    with made(f"{empty_database_url}?options=-csearch_path%3Dmc") as engine:
        migrate(engine, standalone=True)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM agents")) == 0
            assert connection.scalar(text("SELECT to_regclass('public.agents')")) is None


def test_where_a_pooler_drops_our_options_each_transaction_brings_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = database._BoundedConnection.connect

    def forgetful(**given: Any) -> Any:
        given.pop("options", None)
        return connect(**given)

    sent: list[str] = []
    with monkeypatch.context() as patch, made(database_url) as engine:
        patch.setattr("worker.database._BoundedConnection.connect", forgetful)
        event.listen(engine, "before_cursor_execute", lambda _c, _u, statement, *_: sent.append(statement))
        assert bounded(engine)
        with engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None
            assert raw.cursor().execute("SHOW statement_timeout").fetchone() == ("0",), (
                "left on no connection"
            )
    # The settings come in one message with BEGIN: there are as many round trips as without a pooler.
    assert [statement.split(";")[0] for statement in sent if statement.startswith("BEGIN")] == ["BEGIN"] * 2
    assert not any(statement.startswith("SET") for statement in sent)


def test_an_operators_options_reach_each_transaction_behind_a_pooler(database_url: str) -> None:
    with psycopg.connect(plain(database_url), autocommit=True) as admin:
        admin.execute('CREATE SCHEMA "el s%e"')
    options = "-c%20search_path%3D%22el%5C%20s%25e%22%20--work-mem%3D9MB"
    with bouncer(database_url) as url, made(f"{url}?options={options}") as engine:
        assert bounded(engine)
        with engine.begin() as connection:
            assert connection.scalar(text("SHOW work_mem")) == "9MB"
            assert connection.scalar(text("SHOW search_path")) == '"el s%e", public'
            assert connection.scalar(text("SELECT count(*) FROM agents")) == 0


@pytest.mark.parametrize("more", [(), ("ignore_startup_parameters = options",)])
def test_behind_pgbouncer_statements_are_bounded_and_none_is_prepared(
    database_url: str, more: tuple[str, ...]
) -> None:
    with bouncer(database_url, "default_pool_size = 2", *more) as url, made(url, pool_size=6) as engine:
        assert bounded(engine)
        held = [engine.connect() for _ in range(6)]
        for _ in range(8):  # the driver prepares a statement when it is executed for the sixth time
            for connection in held:
                with connection.begin():
                    connection.execute(
                        text("SELECT count(*) FROM provisioner.jobs WHERE id = :id"), {"id": None}
                    )
        for connection in held:
            connection.close()
        with psycopg.connect(plain(url), autocommit=True) as other:
            for _ in range(4):
                assert other.execute("SHOW statement_timeout").fetchone() == ("0",), "another's statement"
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 50"))
            with pytest.raises(OperationalError, match="statement timeout"):
                connection.execute(text("SELECT pg_sleep(5)"))


def test_a_server_that_refuses_us_is_told_from_one_that_is_away(
    database_url: str, services: LocalServices
) -> None:
    user, _, place = database_url.removeprefix("postgresql+psycopg://").partition("@")
    name = user.partition(":")[0]
    assert refusal_of(database_url) is None
    assert (
        refusal_of(f"postgresql+psycopg://{name}:wr0ng@{place}") == "the server refuses its user or password"
    )
    assert refusal_of(f"{database_url}_none") == "the server has no such database or user"
    assert "TLS" in (refusal_of(f"{database_url}?sslmode=require") or "")
    assert refusal_of("postgresql+psycopg://u:p@127.0.0.1:9/d") is None
    for options in ("-c nosuch_setting=1", "-c foo", "hello", "-c max_connections=5"):
        assert "options or PGOPTIONS" in (refusal_of(f"{database_url}?options={quote(options)}") or ""), (
            options
        )


def test_a_connection_on_which_no_answer_comes_is_given_up_and_what_it_locked_is_freed(
    database_url: str,
) -> None:
    """Something between us and the server goes on acknowledging what we send, so the kernel sees no fault."""
    url = make_url(database_url)
    assert url.port is not None
    options = "-c statement_timeout=200ms -c idle_in_transaction_session_timeout=300ms"
    with (
        Proxy(url.port, random.Random(1)) as proxy,
        made(database_url) as direct,
        made(url.set(port=proxy.port).update_query_dict({"options": options}), pool_size=1) as engine,
    ):
        with direct.begin() as connection:
            connection.execute(text("CREATE TABLE one (n int)"))
            connection.execute(text("INSERT INTO one VALUES (1)"))
        began = time.monotonic()
        with engine.connect() as connection:
            connection.execute(text("UPDATE one SET n = 2"))
            proxy.silence()
            with pytest.raises(DatabaseNotNow, match=r"has not answered for 0\.3 s"):
                connection.execute(text("UPDATE one SET n = 3"))
        assert time.monotonic() - began < 5
        with direct.begin() as connection:
            assert connection.execute(text("UPDATE one SET n = n + 3 RETURNING n")).scalar_one() == 4
        with engine.begin() as connection:
            assert connection.execute(text("SELECT n FROM one")).scalar_one() == 4


def test_a_server_that_falls_silent_is_given_up_before_the_kernel_would(database_url: str) -> None:
    engine = make_engine(database_url)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        told = driver.info.get_parameters()
    engine.dispose()
    assert int(told["tcp_user_timeout"]) == 20_000
    assert (
        int(told["keepalives_idle"]) + int(told["keepalives_interval"]) * int(told["keepalives_count"]) == 20
    )
