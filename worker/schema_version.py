"""The schema version of our tables: the one that this release needs, and the one that a database has.

Alembic knows both as well, but importing it, and all tables with it, takes a fifth of a worker's start time.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

NEEDED_REVISION = "0032"
"""The newest revision in models/migrations; a test compares the two. Revisions have leading zeros, so that a
later one compares as the greater string."""

_TABLE = "provisioner.alembic_version"


def revision_of(connection: Connection) -> str | None:
    """The database's revision, or None before the first migration."""
    if connection.execute(text("SELECT to_regclass(:table)"), {"table": _TABLE}).scalar_one() is None:
        return None
    revision: str | None = connection.execute(text(f"SELECT version_num FROM {_TABLE}")).scalar_one_or_none()
    return revision
