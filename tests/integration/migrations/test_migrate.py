"""``provisioner migrate``: our schema, and not a line of anybody else's (design D10)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, make_url, text

from models import MissionControl, Provisioner
from models.migrate import MixedDatabaseError, current_revision, head_revision, migrate
from worker.database import make_engine
from worker.local.binaries import find_postgres

_MORE_OF_MISSION_CONTROL = """
    CREATE TABLE board_groups (id uuid PRIMARY KEY, name varchar NOT NULL);
    ALTER TABLE boards ADD COLUMN board_group_id uuid REFERENCES board_groups (id);
    ALTER TABLE agents ADD COLUMN lifecycle_generation integer NOT NULL DEFAULT 0;
    ALTER TABLE agents ALTER COLUMN lifecycle_generation DROP DEFAULT;
    ALTER TABLE gateways ADD COLUMN allow_insecure_tls boolean NOT NULL DEFAULT false;
    CREATE TABLE activity_events (id uuid PRIMARY KEY, agent_id uuid REFERENCES agents (id), message varchar);
    CREATE TABLE jobs (id serial PRIMARY KEY, what varchar);
    CREATE INDEX ix_agents_status ON agents (status);
    CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('somebody_elses');
    CREATE TYPE mood AS ENUM ('calm', 'busy');
    CREATE VIEW busy_agents AS SELECT id, name FROM agents WHERE status = 'busy';
"""


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Engine]:
    engine = make_engine(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def definitions(empty_database_url: str) -> Callable[[str], str]:
    """One schema as pg_dump writes it."""
    url = make_url(empty_database_url)
    program = find_postgres().path.with_name("pg_dump")
    place = ["-h", str(url.host), "-p", str(url.port), "-U", str(url.username), str(url.database)]

    def dump(schema: str) -> str:
        done = subprocess.run(
            [str(program), "-s", "-n", schema, *place],
            env={"PGPASSWORD": str(url.password), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        # pg_dump 18 fences its output with a random key.
        return re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)

    return dump


def _tables(engine: Engine, schema: str) -> set[str]:
    return set(inspect(engine).get_table_names(schema))


def test_an_empty_database_gets_our_schema_and_nothing_else(empty: Engine) -> None:
    assert migrate(empty) == (None, head_revision())
    ours = {str(table.name) for table in Provisioner.metadata.tables.values()}
    assert _tables(empty, "provisioner") == ours | {"alembic_version"}
    assert _tables(empty, "public") == set()


def test_a_second_run_changes_nothing(empty: Engine, definitions: Callable[[str], str]) -> None:
    migrate(empty)
    first = definitions("provisioner")
    assert "CREATE TABLE provisioner.jobs" in first
    assert migrate(empty) == (head_revision(), head_revision())
    assert definitions("provisioner") == first


def test_two_deployments_may_migrate_at_once(empty: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: migrate(empty, standalone=True), range(4)))
    assert sorted(before is None for before, _ in outcomes) == [False, False, False, True]


def test_mission_controls_definitions_are_the_same_before_and_after(
    empty: Engine, definitions: Callable[[str], str]
) -> None:
    with empty.begin() as connection:
        MissionControl.metadata.create_all(connection)
        connection.execute(text(_MORE_OF_MISSION_CONTROL))
    before = definitions("public")
    assert "lifecycle_generation integer NOT NULL" in before
    for standalone in (False, True):
        migrate(empty, standalone=standalone)
        assert definitions("public") == before
    with empty.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM public.alembic_version")).scalar_one() == (
            "somebody_elses"
        )
        assert current_revision(connection) == head_revision()


def test_models_and_migrations_agree(empty: Engine) -> None:
    migrate(empty)
    with empty.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: name == "provisioner" if kind == "schema" else True,
                "version_table_schema": "provisioner",
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, Provisioner.metadata) == []


def test_no_foreign_key_leaves_our_schema(empty: Engine) -> None:
    migrate(empty, standalone=True)
    inspector = inspect(empty)
    targets = {
        key["referred_schema"]
        for table in inspector.get_table_names("provisioner")
        for key in inspector.get_foreign_keys(table, "provisioner")
    }
    assert targets == {"provisioner"}


def test_standalone_makes_mission_controls_tables_where_there_are_none(empty: Engine) -> None:
    migrate(empty, standalone=True)
    assert _tables(empty, "public") == set(MissionControl.metadata.tables)


def test_standalone_after_a_plain_run_makes_mission_controls_tables_outside_our_schema(empty: Engine) -> None:
    migrate(empty)
    migrate(empty, standalone=True)
    assert _tables(empty, "public") == set(MissionControl.metadata.tables)
    assert not _tables(empty, "provisioner") & set(MissionControl.metadata.tables)


def test_standalone_refuses_a_half_present_mission_control(
    empty: Engine, definitions: Callable[[str], str]
) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE TABLE agents (id uuid PRIMARY KEY)"))
    before = definitions("public")
    with pytest.raises(MixedDatabaseError, match=r"holds Mission Control's agents but not .*boards"):
        migrate(empty, standalone=True)
    assert definitions("public") == before
    assert migrate(empty) == (None, head_revision())


def test_a_bare_row_of_id_kind_and_target_is_a_whole_enqueue(engine: Engine) -> None:
    """Contract: every column of ``jobs`` but id and kind is nullable or has a default."""
    with engine.begin() as connection:
        row = connection.execute(
            text(
                "INSERT INTO provisioner.jobs (id, kind) VALUES (gen_random_uuid(), 'provision_agent')"
                " RETURNING status, options, warnings, attempts, generation, next_attempt_at <= now() AS due"
            )
        ).one()
    assert tuple(row) == ("queued", {}, [], 0, 0, True)


@pytest.mark.parametrize(
    ("column", "value"), [("kind", "make_coffee"), ("status", "done")], ids=["kind", "status"]
)
def test_a_job_of_a_kind_or_status_that_nobody_knows_is_refused_by_the_table(
    engine: Engine, column: str, value: str
) -> None:
    values = {"kind": "provision_agent", "status": "queued", column: value}
    with pytest.raises(Exception, match=f"jobs_{column}_check"), engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO provisioner.jobs (id, kind, status) VALUES (gen_random_uuid(), :kind, :status)"
            ),
            values,
        )
