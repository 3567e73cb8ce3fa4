"""Migrates a database to the schema version that this release needs (interfaces.md 2)."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, text

from models.schemas import PROVISIONER_SCHEMA, MissionControl, MixedDatabaseError

_ONE_AT_A_TIME = 0x6F70_656E  # advisory lock: two deployments may start `migrate` at once


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, built without a configuration file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def migrate(engine: Engine, *, standalone: bool = False) -> tuple[str | None, str]:
    """Upgrade the schema ``provisioner``; return Alembic's revision before and after.

    With ``standalone``, also create Mission Control's tables if none of them exists; existing ones are never
    touched. Raises MixedDatabaseError if only some exist.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})
        if standalone:
            _make_mission_control(connection)
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {PROVISIONER_SCHEMA}"))
        before = _revision(connection)
        command.upgrade(alembic_config(connection), "head")
        after = _revision(connection)
    assert after is not None
    return before, after


def _revision(connection: Connection) -> str | None:
    """The database's revision, or None before the first migration."""
    options = {"version_table_schema": PROVISIONER_SCHEMA}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _make_mission_control(connection: Connection) -> None:
    wanted = set(MissionControl.metadata.tables)
    exists = text("SELECT to_regclass(:name) IS NOT NULL")
    present = {name for name in wanted if connection.execute(exists, {"name": name}).scalar_one()}
    if not present:
        # A role called `provisioner` has our schema first on its search path, so its tables would go there.
        connection.execute(text("SET LOCAL search_path TO public"))
        MissionControl.metadata.create_all(connection, checkfirst=False)
    elif missing := wanted - present:
        raise MixedDatabaseError(
            f"This database holds Mission Control's {', '.join(sorted(present))} but not"
            f" {', '.join(sorted(missing))}: migrate Mission Control first, or use an empty database."
        )
