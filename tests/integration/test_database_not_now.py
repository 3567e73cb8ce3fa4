"""Each class of errors that means "not now" is provoked on a real server, as are some that do not mean it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from worker.database import DATABASE_AWAY, make_engine
from worker.database_errors import DatabaseNotNow
from worker.lab.servers import LocalServices

INSERT = "INSERT INTO provisioner.jobs (id, kind) VALUES (gen_random_uuid(), 'provision_agent')"


class RestrictedDatabase:
    """A separate database, and a role with every right in it, which the tests then obstruct."""

    def __init__(self, services: LocalServices, url: str, number: int) -> None:
        self.name = str(make_url(url).database)
        self.role = f"worker_{number}"
        self.admin = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
        self.do("DROP ROLE IF EXISTS {role}")
        self.do("CREATE ROLE {role} LOGIN PASSWORD 'first'")
        self.do("GRANT USAGE ON SCHEMA provisioner, public TO {role}")
        self.do("GRANT ALL ON ALL TABLES IN SCHEMA provisioner, public TO {role}")
        self.url = make_url(url).set(username=self.role, password="first")
        self.engine = make_engine(self.url, pool_size=3)

    def do(self, statement: str) -> None:
        names = {"role": sql.Identifier(self.role), "database": sql.Identifier(self.name)}
        self.admin.execute(sql.SQL(statement).format(**names))

    def write(self, statement: str = INSERT, setting: str = "") -> None:
        with self.engine.begin() as connection:
            if setting:
                connection.execute(text(setting))
            connection.execute(text(statement))

    def close(self) -> None:
        self.engine.dispose()
        self.do("DROP OWNED BY {role}")
        self.do("DROP ROLE {role}")
        self.admin.close()


@pytest.fixture
def restricted(services: LocalServices, database_url: str) -> Iterator[RestrictedDatabase]:
    restricted = RestrictedDatabase(services, database_url, threading.get_native_id())
    yield restricted
    restricted.close()


HINDRANCES = {
    "25006 by default": (
        "ALTER DATABASE {database} SET default_transaction_read_only = on",
        "ALTER DATABASE {database} RESET default_transaction_read_only",
        "25006",
        "it takes no writes",
    ),
    "42501 on a table": (
        "REVOKE INSERT ON provisioner.jobs FROM {role}",
        "GRANT INSERT ON provisioner.jobs TO {role}",
        "42501",
        "permission denied for table jobs, SQLSTATE 42501): GRANT SELECT, INSERT ON provisioner.jobs",
    ),
    "42501 on the schema": (
        "REVOKE USAGE ON SCHEMA provisioner FROM {role}",
        "GRANT USAGE ON SCHEMA provisioner TO {role}",
        "42501",
        "schema provisioner",
    ),
    "42P01": (
        "ALTER TABLE provisioner.jobs RENAME TO gone",
        "ALTER TABLE provisioner.gone RENAME TO jobs",
        "42P01",
        "run `provisioner migrate`",
    ),
    "3F000 or 42P01": (
        "ALTER SCHEMA provisioner RENAME TO gone",
        "ALTER SCHEMA gone RENAME TO provisioner",
        "42P01",
        "run `provisioner migrate`",
    ),
    "28000": ("ALTER ROLE {role} NOLOGIN", "ALTER ROLE {role} LOGIN", None, "not permitted to log in"),
    "28P01": ("ALTER ROLE {role} PASSWORD 'x'", "ALTER ROLE {role} PASSWORD 'first'", None, "password"),
    "53300": (
        "ALTER ROLE {role} CONNECTION LIMIT 0",
        "ALTER ROLE {role} CONNECTION LIMIT -1",
        None,
        "too many",
    ),
    "42501 to connect": (
        "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {database} TO PUBLIC",
        None,
        "permission denied for database",
    ),
}


@pytest.mark.parametrize("hindrance", HINDRANCES)
def test_what_keeps_us_from_writing_is_not_now_and_passes(
    restricted: RestrictedDatabase, hindrance: str
) -> None:
    begin, end, sqlstate, words = HINDRANCES[hindrance]
    restricted.do(begin)
    try:
        for _ in range(2):
            with pytest.raises(DatabaseNotNow) as raised:
                restricted.write()
            assert raised.value.sqlstate == sqlstate
            assert words in str(raised.value)
            assert "first" not in str(raised.value)
    finally:
        restricted.do(end)
    restricted.write()


def test_a_standby_that_was_promoted_is_asked_over_a_new_connection(restricted: RestrictedDatabase) -> None:
    """A session stays read-only after the database no longer is, so sessions that said so are replaced."""
    restricted.do("ALTER DATABASE {database} SET default_transaction_read_only = on")
    opened = [restricted.engine.connect() for _ in range(3)]
    for connection in opened:
        connection.close()
    with pytest.raises(DatabaseNotNow):
        restricted.write()
    restricted.do("ALTER DATABASE {database} RESET default_transaction_read_only")
    for _ in range(3):
        restricted.write()


@pytest.mark.parametrize("more", [(INSERT,), ()], ids=["amid", "before the commit"])
def test_a_session_that_is_ended(restricted: RestrictedDatabase, more: tuple[str, ...]) -> None:
    def interrupted() -> None:
        with restricted.engine.begin() as connection:
            connection.execute(text(INSERT))
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
            restricted.admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            for statement in more:
                connection.execute(text(statement))

    with pytest.raises(DatabaseNotNow):
        interrupted()
    restricted.write()


WAITS = {"55P03": "SET LOCAL lock_timeout = '20ms'", "57014": "SET LOCAL statement_timeout = '20ms'"}


@pytest.mark.parametrize("sqlstate", WAITS)
def test_a_lock_that_somebody_keeps(restricted: RestrictedDatabase, sqlstate: str) -> None:
    with restricted.admin.transaction():
        restricted.admin.execute("LOCK TABLE provisioner.jobs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseNotNow) as raised:
            restricted.write(setting=WAITS[sqlstate])
    assert raised.value.sqlstate == sqlstate


def test_a_serialization_failure(restricted: RestrictedDatabase) -> None:
    def overtaken() -> None:
        with restricted.engine.execution_options(isolation_level="REPEATABLE READ").begin() as connection:
            connection.execute(text("SELECT count(*) FROM provisioner.jobs"))
            restricted.admin.execute("UPDATE provisioner.jobs SET phase = 'x'")
            connection.execute(text("UPDATE provisioner.jobs SET phase = 'y'"))

    restricted.write(INSERT)
    with pytest.raises(DatabaseNotNow) as raised:
        overtaken()
    assert raised.value.sqlstate == "40001"


def test_a_deadlock(restricted: RestrictedDatabase) -> None:
    met, said = threading.Barrier(2), []

    def lock(first: int, second: int) -> None:
        try:
            with restricted.engine.begin() as connection:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({first})"))
                met.wait(10)
                connection.execute(text(f"SELECT pg_advisory_xact_lock({second})"))
        except DatabaseNotNow as error:
            said.append(error.sqlstate)

    other = threading.Thread(target=lock, args=(2, 1))
    other.start()
    lock(1, 2)
    other.join()
    assert said == ["40P01"]


def test_a_server_that_is_not_there() -> None:
    engine = make_engine("postgresql+psycopg://nobody:secret-word@127.0.0.1:9/none")
    with pytest.raises(DatabaseNotNow) as raised, engine.connect():
        pass
    assert "it cannot be reached" in str(raised.value)
    assert "secret-word" not in str(raised.value)


def test_a_database_that_is_not_there(restricted: RestrictedDatabase) -> None:
    engine = make_engine(restricted.url.set(database="nowhere"))
    with pytest.raises(DatabaseNotNow, match="does not exist"), engine.connect():
        pass


def test_a_pool_without_a_free_connection(restricted: RestrictedDatabase) -> None:
    assert isinstance(DATABASE_AWAY, tuple)
    engine = create_engine(restricted.url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    with engine.connect(), pytest.raises(DATABASE_AWAY), engine.connect():
        pass
    engine.dispose()


@pytest.mark.parametrize("sqlstate", ["53100", "58030", "XX000", "XX001", "26000", "42P05", "57P02"])
def test_what_a_test_cannot_bring_about_is_told_by_its_code(
    restricted: RestrictedDatabase, sqlstate: str
) -> None:
    with pytest.raises(DatabaseNotNow) as raised:
        restricted.write(f"DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{sqlstate}'; END $$")
    assert raised.value.sqlstate == sqlstate
    restricted.write()


def test_a_column_that_gets_another_type_while_its_statement_is_prepared(
    restricted: RestrictedDatabase,
) -> None:
    """Mission Control migrates while workers run; Postgres reports that as an unsupported feature."""
    asked = text("SELECT name FROM agents LIMIT 1")
    engine = make_engine(restricted.url, pool_size=1)
    for _ in range(8):
        with engine.begin() as connection:
            connection.execute(asked)
    restricted.do("ALTER TABLE agents ALTER COLUMN name TYPE text")
    with pytest.raises(DatabaseNotNow, match="passes by itself"), engine.begin() as connection:
        connection.execute(asked)
    with engine.begin() as connection:
        connection.execute(asked)
    engine.dispose()


OURS = {
    "0A000": "SELECT count(*) FROM provisioner.jobs FOR UPDATE",
    "23514": "INSERT INTO provisioner.jobs (id, kind, status) VALUES (gen_random_uuid(), 'x', 'x')",
    "22P02": "SELECT 'x'::uuid",
    "42601": "SELEC 1",
    "42703": "SELECT nothing FROM provisioner.jobs",
    "54000": "INSERT INTO provisioner.jobs (id, kind, request_id) SELECT gen_random_uuid(), 'sync_gateway',"
    " string_agg(md5(i::text), '') FROM generate_series(1, 1000) i",
    "P0001": "DO $$ BEGIN RAISE EXCEPTION 'no'; END $$",
}


@pytest.mark.parametrize("sqlstate", OURS)
def test_a_fault_of_ours_is_not(restricted: RestrictedDatabase, sqlstate: str) -> None:
    with pytest.raises(DBAPIError) as raised:
        restricted.write(OURS[sqlstate])
    assert not isinstance(raised.value, DatabaseNotNow)


def test_the_engine_of_a_command_says_it_too(engine: Engine) -> None:
    with pytest.raises(DatabaseNotNow), engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM provisioner.nothing"))
