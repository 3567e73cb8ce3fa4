"""``provisioner migrate``: our schema, and not a line of anybody else's (decisions.md D10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from models import MissionControl, Provisioner
from models.migrate import alembic_config, migrate
from models.schemas import MixedDatabaseError
from tests.integration import mission_control
from worker.database import make_engine
from worker.schema_version import NEEDED_REVISION, revision_of


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Engine]:
    engine = make_engine(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def definitions(empty_database_url: str) -> Callable[[str], str]:
    """One schema as pg_dump writes it."""
    return partial(mission_control.definitions, empty_database_url)


def _tables(engine: Engine, schema: str) -> set[str]:
    return set(inspect(engine).get_table_names(schema))


def test_an_empty_database_gets_our_schema_and_nothing_else(empty: Engine) -> None:
    with empty.connect() as connection:
        assert revision_of(connection) is None
    assert migrate(empty) == (None, NEEDED_REVISION)
    ours = {str(table.name) for table in Provisioner.metadata.tables.values()}
    assert _tables(empty, "provisioner") == ours | {"alembic_version"}
    assert _tables(empty, "public") == set()


def test_a_second_run_changes_nothing(empty: Engine, definitions: Callable[[str], str]) -> None:
    migrate(empty)
    first = definitions("provisioner")
    assert "CREATE TABLE provisioner.jobs" in first
    assert migrate(empty) == (NEEDED_REVISION, NEEDED_REVISION)
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
        connection.execute(text(mission_control.MORE_OF_MISSION_CONTROL))
    before = definitions("public")
    assert "lifecycle_generation integer NOT NULL" in before
    for standalone in (False, True):
        migrate(empty, standalone=standalone)
        assert definitions("public") == before
    with empty.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM public.alembic_version")).scalar_one() == (
            "somebody_elses"
        )
        assert revision_of(connection) == NEEDED_REVISION


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


def test_the_list_of_kinds_comes_back_with_the_revision_before(
    empty: Engine, definitions: Callable[[str], str]
) -> None:
    def move(to: str) -> None:
        with empty.begin() as connection:
            step = command.downgrade if to == "0011" else command.upgrade
            step(alembic_config(connection), to)

    migrate(empty)
    newest = definitions("provisioner")
    move("0011")
    insert = text("INSERT INTO provisioner.jobs (id, kind) VALUES (gen_random_uuid(), 'make_coffee')")
    with pytest.raises(Exception, match="jobs_kind_check"), empty.begin() as connection:
        connection.execute(insert)
    move(NEEDED_REVISION)
    assert definitions("provisioner") == newest
    with empty.begin() as connection:
        connection.execute(insert)
    with pytest.raises(Exception, match="jobs_kind_check"):
        move("0011")


@pytest.mark.parametrize(
    ("older", "newer", "columns"),
    [
        ("0012", "0013", {"jobs": {"reason_code": None, "wait_reason": None}}),
        ("0013", "0014", {"jobs": {"tries": 0, "crashes": 0}}),
        ("0014", "0015", {"roster_intents": {"reason_code": None}}),
        ("0015", "0016", {}),
        ("0016", "0017", {"jobs": {"webhook": None}}),
    ],
)
def test_columns_come_without_a_rewrite_and_go_again(
    empty: Engine,
    definitions: Callable[[str], str],
    older: str,
    newer: str,
    columns: dict[str, dict[str, Any]],
) -> None:
    """A million rows cost no more than one, as the tables stay in their files. What an older worker inserts
    beside it holds what an old row does."""

    def move(to: str) -> list[int]:
        with empty.begin() as connection:
            step = command.downgrade if to == older else command.upgrade
            step(alembic_config(connection), to)
            file = text("SELECT pg_relation_filenode(CAST(:table AS regclass))")
            tables = ("jobs", "job_agents", "roster_intents")
            return [
                connection.execute(file, {"table": f"provisioner.{table}"}).scalar_one() for table in tables
            ]

    def insert() -> None:
        with empty.begin() as connection:
            connection.execute(
                text("INSERT INTO provisioner.jobs (id, kind) VALUES (gen_random_uuid(), 'update_agent')")
            )
            connection.execute(
                text(
                    "INSERT INTO provisioner.roster_intents (gateway_id, agent_id, job_id, change,"
                    " openclaw_id) SELECT id, id, id, 'remove', 'x' FROM provisioner.jobs"
                    " ON CONFLICT DO NOTHING"
                )
            )

    migrate(empty)
    before = move(older)
    definition = definitions("provisioner")
    insert()
    assert move(newer) == before
    insert()
    for table, values in columns.items():
        with empty.connect() as connection:
            rows = connection.execute(text(f"SELECT {', '.join(values)} FROM provisioner.{table}")).all()
        assert [dict(row._mapping) for row in rows] == [values, values]
    assert move(older) == before
    assert definitions("provisioner") == definition


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
    assert migrate(empty) == (None, NEEDED_REVISION)


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
    ("column", "value", "check"),
    [
        ("status", "done", "status"),
        ("kind", "make coffee", "kind_form"),
        ("kind", "provision_agent\n", "kind_form"),
        ("kind", "x" * 64, "kind_form"),
        ("kind", "", "kind_form"),
    ],
    ids=["status", "two words", "line end", "long", "empty"],
)
def test_a_status_that_nobody_knows_or_a_kind_that_is_no_name_is_refused_by_the_table(
    engine: Engine, column: str, value: str, check: str
) -> None:
    values = {"kind": "provision_agent", "status": "queued", column: value}
    with pytest.raises(Exception, match=f"jobs_{check}_check"), engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO provisioner.jobs (id, kind, status) VALUES (gen_random_uuid(), :kind, :status)"
            ),
            values,
        )
